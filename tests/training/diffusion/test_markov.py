"""Test on a source of known entropy: the causal model reaches it, and masked diffusion approaches it from above."""

from typing import Any

import pytest
import torch
from torch import Tensor

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer

STATES, LENGTH = 6, 17


class Chain:
    """A Markov chain with random transitions that starts from its stationary distribution."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.next_SS = torch.randn(STATES, STATES, dtype=torch.float64).mul(1.5).softmax(1)
        self.stationary_S = torch.linalg.matrix_power(self.next_SS, 200)[0]
        self.draw = torch.Generator().manual_seed(1)

    def entropy(self) -> float:
        """Return the entropy rate: nats of any token after the first, given those before."""
        return float(-(self.stationary_S.unsqueeze(1) * self.next_SS.xlogy(self.next_SS)).sum())

    def blocks(self, num: int) -> Tensor:
        """Draw (num, LENGTH) tokens."""
        columns = [torch.multinomial(self.stationary_S, num, True, generator=self.draw)]
        for _ in range(LENGTH - 1):
            columns.append(torch.multinomial(self.next_SS[columns[-1]], 1, generator=self.draw).squeeze(1))
        return torch.stack(columns, 1)


def trained(kind: str, chain: Chain, steps: int, **settings: Any) -> tuple[Transformer, torch.nn.Module]:
    """Train a small model for this many steps."""
    options = options_of("training/objective", kind).model_validate({"kind": kind, **settings})
    module = component_module(options)
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": {"kind": "dense", "hidden": 64}, "depth": "every"}
    shape = {"width": 32, "num_layers": 2, "context": LENGTH, "position": "rotary", "init_std": 0.1, "block": block}
    torch.manual_seed(2)
    causal = getattr(options, "causal", True)
    words = STATES + getattr(options, "extra_tokens", 0)
    model = Transformer(ModelSpec.model_validate({**shape, "causal": causal}), words)
    objective = module.Objective(options)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(model, chain.blocks(64)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval(), objective


@pytest.mark.slow
def test_both_come_near_the_entropy_of_the_source() -> None:
    chain = Chain()
    text_BT = chain.blocks(1000)
    # the entropy of exactly these texts, which is what both losses measure
    actual = float(-chain.next_SS[text_BT[:, :-1], text_BT[:, 1:]].log().mean())
    assert actual == pytest.approx(chain.entropy(), rel=0.03)
    model, causal = trained("causal", chain, 250)
    causal_loss = float(causal.token_nll(model, text_BT).mean())
    model, diffusion = trained("masked_diffusion", chain, 500)
    draws_PBS = diffusion.nll_estimates(model, text_BT)
    bound, error = float(draws_PBS.mean()), float(draws_PBS.mean((1, 2)).std()) / len(draws_PBS) ** 0.5
    assert causal_loss / actual == pytest.approx(1, abs=0.02)
    assert bound > causal_loss - 3 * error
    assert bound / actual < 1.08
