"""Test attention over gathered keys against dense attention with all other keys masked, in value and gradient."""

import pytest
import torch
from torch import Tensor

from speciate.model.sparse_attention import gather_recompute, gathered_softmax


@pytest.fixture(params=[1, 10**6])
def few_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered_softmax, "ELEMENTS", request.param)
    monkeypatch.setattr(gather_recompute, "ELEMENTS", request.param)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def masked(
    query_RNh: Tensor, key_MW: Tensor, value_MW: Tensor, bias_Rk: Tensor | None, index_Rk: Tensor, valid_Rk: Tensor
) -> Tensor:
    """Compute the same with the scores of all keys."""
    num_heads, width = query_RNh.shape[1:]
    groups = num_heads * width // key_MW.shape[1]
    key_MNh, value_MNh = (x.unflatten(1, (-1, width)).repeat_interleave(groups, 1) for x in (key_MW, value_MW))
    score_NRM = torch.einsum("rnh,mnh->nrm", query_RNh, key_MNh) / width**0.5
    extra_RM = torch.full(score_NRM.shape[1:], -torch.inf, dtype=torch.float64)
    # an invalid key goes to an extra column, which is cut off again
    column_Rk = index_Rk.where(valid_Rk, len(key_MW))
    bias_Rk = torch.zeros(index_Rk.shape, dtype=torch.float64) if bias_Rk is None else bias_Rk
    extra_RM = torch.cat([extra_RM, extra_RM[:, :1]], 1).scatter(1, column_Rk, bias_Rk)[:, :-1]
    return torch.einsum("nrm,mnh->rnh", (score_NRM + extra_RM).softmax(-1), value_MNh)


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("num_groups", [1, 2, 4])
@pytest.mark.parametrize("biased", [False, True])
def test_equals_masked_attention(num_groups: int, biased: bool) -> None:
    torch.manual_seed(0)
    inputs = (random(5, 4, 3), random(7, 3 * num_groups), random(7, 3 * num_groups))
    bias_Rk = random(5, 3) if biased else None
    index_Rk = torch.stack([torch.randperm(7)[:3] for _ in range(5)])
    valid_Rk = torch.tensor([[True, True, True], [True, False, False], [False, True, True], [True] * 3, [True] * 3])
    mixed_RNh, mass_Rk = gathered_softmax.gathered_attention(*inputs, bias_Rk, index_Rk=index_Rk, valid_Rk=valid_Rk)
    expected_RNh = masked(*inputs, bias_Rk, index_Rk, valid_Rk)
    torch.testing.assert_close(mixed_RNh, expected_RNh)
    torch.testing.assert_close(mass_Rk.sum(1), torch.ones(5, dtype=torch.float64))
    assert (mass_Rk[~valid_Rk] == 0).all()
    gradient_RNh = torch.randn_like(mixed_RNh)
    learned = [*inputs, *([bias_Rk] if bias_Rk is not None else [])]
    ours = torch.autograd.grad(mixed_RNh, learned, gradient_RNh)
    theirs = torch.autograd.grad(expected_RNh, learned, gradient_RNh)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("few_at_once")
def test_a_gathered_function_has_the_gradient_of_its_definition() -> None:
    torch.manual_seed(0)
    index_Rk = torch.randint(4, (6, 3))

    def function(asked, kept, shared):  # type: ignore[no-untyped-def]
        return (torch.einsum("ci,cki->ck", asked[0], kept[0]).sigmoid() * shared[0], asked[0] * 2)

    def ours(asked: Tensor, kept: Tensor, shared: Tensor) -> tuple[Tensor, ...]:
        return gather_recompute.gather_recompute(function, index_Rk, [asked], [kept], shared=[shared])

    inputs = (random(6, 2), random(4, 2), random(1))
    for one, other in zip(ours(*inputs), function([inputs[0]], [inputs[1][index_Rk]], [inputs[2]]), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(ours, inputs)
