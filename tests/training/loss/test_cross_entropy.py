"""Test the chunked cross-entropy against torch's own, weighted and plain; the nats it returns carry no gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from speciate.training.loss.cross_entropy import per_token_nll, summed_nll, weighted_nll

TARGET_N = torch.tensor([0, 5, 5, 2, 1, 3, 0])


def inputs() -> tuple[Tensor, Tensor]:
    """Draw the output layer's inputs and its weight, in double precision."""
    draw = torch.Generator().manual_seed(0)
    x_ND, head_VD = (torch.randn(size, 4, dtype=torch.float64, generator=draw, requires_grad=True) for size in (7, 6))
    return x_ND, head_VD


def assert_same_gradients(total: Tensor, expected: Tensor, parameters: tuple[Tensor, Tensor]) -> None:
    gradients = (torch.autograd.grad(2 * loss, parameters) for loss in (total, expected))
    for ours, torchs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, torchs)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_weighted_sum_equals_torchs(chunk: int) -> None:
    x_ND, head_VD = inputs()
    weight_N = torch.arange(7.0, dtype=torch.float64)
    total, nll_N = weighted_nll(x_ND, head_VD, TARGET_N, weight_N, chunk=chunk)
    expected_N = F.cross_entropy(x_ND @ head_VD.T, TARGET_N, reduction="none")
    torch.testing.assert_close(nll_N, expected_N.detach())
    torch.testing.assert_close(total, (expected_N * weight_N).sum())
    assert not nll_N.requires_grad
    assert_same_gradients(total, (expected_N * weight_N).sum(), (x_ND, head_VD))


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_plain_sum_equals_torchs(chunk: int) -> None:
    x_ND, head_VD = inputs()
    total = summed_nll(x_ND, head_VD, TARGET_N, chunk)
    expected_N = F.cross_entropy(x_ND @ head_VD.T, TARGET_N, reduction="none")
    torch.testing.assert_close(total, expected_N.sum())
    torch.testing.assert_close(per_token_nll(x_ND, head_VD, TARGET_N, chunk), expected_N.detach())
    assert_same_gradients(total, expected_N.sum(), (x_ND, head_VD))


def test_nothing_to_predict() -> None:
    no_target, no_weight = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    for weighted in (True, False):
        x_ND, head_VD = torch.zeros(0, 4, requires_grad=True), torch.zeros(6, 4, requires_grad=True)
        if weighted:
            total, _ = weighted_nll(x_ND, head_VD, no_target, no_weight, chunk=5)
        else:
            total = summed_nll(x_ND, head_VD, no_target, 5)
        total.backward()
        assert total == 0
        assert not head_VD.grad.any()
