"""Test the auxiliary loss by row and by step; training/distributed tests its scopes over two processes."""

import pytest
import torch
from tests.model.conftest import VOCABULARY, WIDTH, Selecting, route

from speciate.model.moe.top_k_router import load_balancing_loss
from speciate.selection.selection import mark_recomputation


@pytest.mark.parametrize("k", [1, 2])
def test_of_a_sequence_is_the_mean_over_rows(top_k: Selecting, k: int) -> None:
    selector = top_k(balance=("auxiliary", {"weight": 0.25, "scope": "sequence"}), top_k=k)
    selection = route(selector).selection
    rows = zip(selection.probs_NS.split(16), selection.chosen_NS.split(16), strict=True)
    expected = 0.25 * torch.stack([load_balancing_loss(probs_TS, chosen_TS) for probs_TS, chosen_TS in rows]).mean()
    torch.testing.assert_close(selection.loss, expected)
    actual, by_hand = (
        torch.autograd.grad(loss, selector.scorer.weight, retain_graph=True)[0] for loss in (selection.loss, expected)
    )
    torch.testing.assert_close(actual, by_hand)


def test_one_domain_a_sequence_is_uneven_by_sequence_and_even_by_batch(top_k: Selecting) -> None:
    """Check the point of Qiu et al.: a batch's loss allows what a sequence's loss forbids."""
    losses = {}
    for scope in ("sequence", "micro_batch"):
        selector = top_k(balance=("auxiliary", {"weight": 1.0, "scope": scope}))
        selector.scorer.weight.data = 9 * torch.eye(8, WIDTH)
        x_ND = torch.eye(8, WIDTH).repeat_interleave(16, 0)  # each of eight blocks goes to its own slot
        losses[scope] = route(selector, x_ND, torch.zeros((8, 16), dtype=torch.long)).selection.loss.item()
    assert losses["sequence"] == pytest.approx(8, rel=0.01)
    assert losses["micro_batch"] == pytest.approx(1)


def test_of_a_step_counts_all_micro_batches_so_far(top_k: Selecting) -> None:
    selector = top_k(balance=("auxiliary", {"weight": 1.0, "scope": "global_batch"}))
    for _ in range(2):  # two steps: each starts counting anew
        chosen, last = [], None
        for _ in range(3):
            selection = route(selector).selection
            chosen.append(selection.chosen_NS)
            share_S, mean_S = torch.cat(chosen).mean(0), selection.probs_NS.mean(0)
            torch.testing.assert_close(selection.loss, 8 * share_S.dot(mean_S))
            selection.loss.backward()  # the next micro-batch does not invalidate this graph
            last = selection
        selector.after_update()
    assert last is not None
    assert selector.state_dict().keys() == {"scorer.weight", "balance.load_S"}
    selector.scorer.weight.grad = None
    together = route(selector, torch.randn(64, WIDTH), torch.randint(VOCABULARY, (4, 16))).selection
    torch.testing.assert_close(
        together.loss, load_balancing_loss(together.probs_NS, together.chosen_NS)
    )  # a single micro-batch has the loss of its own batch


def test_a_repeated_forward_pass_and_an_observers_look_are_not_counted(top_k: Selecting) -> None:
    selector = top_k(balance=("auxiliary", {"scope": "global_batch"}))
    x_ND, token_BT = torch.randn(64, WIDTH), torch.randint(VOCABULARY, (4, 16))
    first = route(selector, x_ND, token_BT).selection.loss
    load_S = selector.balance.load_S.clone()
    with mark_recomputation():
        assert torch.equal(route(selector, x_ND, token_BT).selection.loss, first)
    seen = route(selector.eval()).selection
    torch.testing.assert_close(seen.loss, 0.01 * load_balancing_loss(seen.probs_NS, seen.chosen_NS))
    assert torch.equal(selector.balance.load_S, load_S)


@pytest.mark.parametrize("scope", ["sequence", "micro_batch", "global_batch"])
def test_it_reaches_the_router_and_through_it_the_tokens_and_nothing_else(top_k: Selecting, scope: str) -> None:
    selector = top_k(balance=("auxiliary", {"scope": scope}))
    x_ND = torch.randn(64, WIDTH, requires_grad=True)
    routing = route(selector, x_ND)
    routing.selection.loss.backward()
    assert selector.scorer.weight.grad.abs().sum() > 0
    assert x_ND.grad.abs().sum() > 0
    assert not routing.selection.chosen_NS.requires_grad
