"""Equal to torch's own cross-entropy, weighted; the nats beside it carry no gradient."""

import pytest
import torch
import torch.nn.functional as F

from speciate.training.loss.weighted_cross_entropy import weighted


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_equals_torchs(chunk: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x_ND, head_VD = (torch.randn(size, 4, dtype=torch.float64, generator=draw, requires_grad=True) for size in (7, 6))
    target_N, weight_N = torch.tensor([0, 5, 5, 2, 1, 3, 0]), torch.arange(7.0, dtype=torch.float64)
    total, nats_N = weighted(x_ND, head_VD, target_N, weight_N, chunk)
    expected_N = F.cross_entropy(x_ND @ head_VD.T, target_N, reduction="none")
    torch.testing.assert_close(nats_N, expected_N.detach())
    torch.testing.assert_close(total, (expected_N * weight_N).sum())
    assert not nats_N.requires_grad
    found = torch.autograd.grad(2 * total, (x_ND, head_VD))
    for mine, theirs in zip(
        found, torch.autograd.grad(2 * (expected_N * weight_N).sum(), (x_ND, head_VD)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_nothing_to_predict() -> None:
    x_ND, head_VD = torch.zeros(0, 4, requires_grad=True), torch.zeros(6, 4, requires_grad=True)
    total, _ = weighted(x_ND, head_VD, torch.zeros(0, dtype=torch.long), torch.zeros(0), 5)
    total.backward()
    assert total == 0
    assert not head_VD.grad.any()
