"""Test the orthogonality loss against a Gram matrix computed by hand."""

import pytest
import torch
from tests.model.conftest import WIDTH, Selecting, route


def test_by_hand_and_zero_for_orthonormal_rows(top_k: Selecting) -> None:
    selector = top_k(balance=("orthogonal", {"weight": 0.5}))
    rows = selector.scorer.weight.tolist()
    expected = sum(
        abs(sum(a * b for a, b in zip(one, other, strict=True)) - (i == j))
        for i, one in enumerate(rows)
        for j, other in enumerate(rows)
    )
    assert route(selector).selection.loss.item() == pytest.approx(0.5 * expected, rel=1e-5)
    selector.scorer.weight.data = torch.linalg.qr(torch.randn(WIDTH, 8)).Q.T.contiguous()
    assert route(selector).selection.loss.item() == pytest.approx(0, abs=1e-4)
    selector.scorer.weight.data.zero_()
    assert route(selector).selection.loss.item() == pytest.approx(0.5 * 8)


@pytest.mark.parametrize("shape", ["linear", "mlp"])
def test_it_moves_the_last_matrix_alone_towards_orthogonal_rows(top_k: Selecting, shape: str) -> None:
    selector = top_k(("learned", {"shape": shape}), ("orthogonal", {"weight": 1.0}))
    x_ND = torch.randn(64, WIDTH, requires_grad=True)
    optimizer = torch.optim.Adam(selector.parameters(), lr=0.01)
    first = route(selector, x_ND).selection.loss.item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = route(selector, x_ND).selection.loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first
    assert x_ND.grad is None
    assert [name for name, weight in selector.named_parameters() if weight.grad is not None] == ["scorer.weight"]
