"""Test value and gradient against torch's own cross-entropy, for every chunk size."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer
from speciate.training.loss.cross_entropy import summed_nll

VOCABULARY = 50


def objective(chunk: int) -> torch.nn.Module:
    options = options_of("training/objective", "causal")(kind="causal", chunk=chunk)
    built: torch.nn.Module = component_module(options).Objective(options)
    return built


def small(tied: bool) -> Transformer:
    torch.manual_seed(0)
    block = {"mixer": "attention", "ffn": {"kind": "dense", "hidden": 20}, "depth": "every"}
    shape = {
        "width": 16,
        "num_layers": 1,
        "context": 16,
        "init_std": 0.5,
        "embedding_std": 0.5,
        "tied_head": tied,
        "block": block,
    }
    return Transformer(ModelSpec.model_validate(shape), VOCABULARY)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 45, 1000])
def test_equals_torchs_cross_entropy(chunk: int, tied: bool) -> None:
    model = small(tied)
    token_BT = torch.randint(VOCABULARY, (3, 16))
    loss = objective(chunk)(model, token_BT)
    loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    logit_BTV = model(token_BT)
    expected = F.cross_entropy(logit_BTV[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten())
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk", [4, 1000])
def test_nats_of_each_prediction_without_gradient(chunk: int) -> None:
    model = small(True)
    token_BT = torch.randint(VOCABULARY, (3, 16))
    nats_BS = objective(chunk).token_nll(model, token_BT)
    expected = F.cross_entropy(model(token_BT)[:, :-1].mT, token_BT[:, 1:], reduction="none")
    assert nats_BS.shape == (3, 15)
    assert not nats_BS.requires_grad
    torch.testing.assert_close(nats_BS, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(nats_BS.mean(), objective(chunk)(model, token_BT))


def test_the_derivative_in_double_precision() -> None:
    torch.manual_seed(0)
    x_ND = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    head_VD = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    target_N = torch.tensor([0, 5, 5, 2, 1])
    assert torch.autograd.gradcheck(lambda x, head: 3 * summed_nll(x, head, target_N, 2), (x_ND, head_VD))


def test_large_logits_stay_finite() -> None:
    model = small(True)
    with torch.no_grad():
        model.token_embedding.weight.mul_(1000)
    loss = objective(8)(model, torch.randint(VOCABULARY, (2, 16)))
    loss.backward()
    assert loss.isfinite()
    assert model.token_embedding.weight.grad.isfinite().all()


def test_the_whole_logits_are_never_there() -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.ndim == 2 and result.shape[1] == VOCABULARY:
                largest = max(largest, len(result))
            return result

    model = small(False)
    with Watch():
        objective(20)(model, torch.randint(VOCABULARY, (4, 16))).backward()
    assert largest == 20  # 20 of 60 predictions; the head's weight, transposed, has 16 rows


def test_micro_batches_average_to_the_batch() -> None:
    model, run = small(True), objective(8)
    token_BT = torch.randint(VOCABULARY, (4, 16))
    without_chunks = run(model, token_BT)
    parts = [run(model, part_BT) for part_BT in token_BT.chunk(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), without_chunks)
