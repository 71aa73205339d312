"""Test FLOPs of Mamba's mixers against torch's own counter, with every product written as a matrix product."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from speciate.config.components import component_module, options_of
from speciate.model.profiling import flops
from speciate.model.ssm import mamba_block
from speciate.model.transformer import Transformer
from speciate.selection.selection import auxiliary_loss, record_selections, selectors

ROM = {"kind": "rom", "router": "learned", "balance": "none"}
MIXERS: dict[str, dict[str, Any]] = {
    "mamba": {"kind": "mamba", "state": 5},
    "shared": {**ROM, "top_k": 2},
    "independent": {**ROM, "routed": "independent"},
    "as published": {**ROM, "routed": "as_published", "top_k": 2},
    "frozen": {**ROM, "router": "frozen"},
}


def products(
    u: Tensor, delta: Tensor, rate: Tensor, write: Tensor, *, read_BTN: Tensor, **rest: Any
) -> tuple[Tensor, Tensor]:
    """Compute the recurrence with its writes to states and its reads from states as matrix products."""
    state_BNI, y = torch.zeros(len(u), *rate.shape), []
    for t in range(u.shape[1]):
        written_BNI = write[:, t, :, None] @ (delta * u)[:, t, None, :]
        state_BNI = torch.exp(delta[:, t, None, :] * rate) * state_BNI + written_BNI
        y.append(read_BTN[:, t, None, :] @ state_BNI)
    return torch.cat(y, dim=1), state_BNI


def taps(space: mamba_block.StateSpace, joined_BSI: Tensor, document_BS: Tensor | None) -> Tensor:
    """Convolve each token's own window with each channel's taps, as products of a row and a column."""
    assert space.conv.bias is not None
    window_BTIK = joined_BSI.unfold(1, space.shape.taps, 1)
    y_BTI = (window_BTIK.permute(2, 0, 1, 3).flatten(1, 2) @ space.conv.weight.mT).squeeze(-1).t()
    return y_BTI.unflatten(0, window_BTIK.shape[:2]) + space.conv.bias


@pytest.mark.parametrize("name", MIXERS)
def test_a_step_has_the_products_that_torch_counts(
    model_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    block = {"mixer": MIXERS[name], "ffn": {"kind": "dense", "hidden": 40}, "depth": "every"}
    model = Transformer(model_spec(block=block), 50)
    options = options_of("training/objective", "causal")(kind="causal")
    objective = component_module(options).Objective(options)
    token_BT = torch.randint(50, (6, 16))
    before = objective(model, token_BT)
    monkeypatch.setattr(mamba_block, "selective_scan", products)
    monkeypatch.setattr(mamba_block.StateSpace, "convolve", taps)
    with FlopCounterMode(display=False) as counter:
        with record_selections(model) as record:
            loss = objective(model, token_BT)
        (loss + auxiliary_loss(record) if selectors(model) else loss).backward()
    torch.testing.assert_close(loss, before)
    assert flops.flops_per_token(model, 16) * token_BT.numel() == pytest.approx(counter.get_total_flops(), rel=1e-12)


def test_a_token_costs_the_same_in_a_longer_text(model_spec: Callable[..., Any]) -> None:
    block = {"mixer": "mamba", "ffn": {"kind": "dense", "hidden": 40}, "depth": "every"}
    model = Transformer(model_spec(block=block), 50)
    head = 6 * model.head_VD.numel()
    of = {length: flops.flops_per_token(model, length) - head * (length - 1) / length for length in (16, 1600)}
    assert of[16] == pytest.approx(of[1600], rel=1e-12)
