"""Test balancing that starts or ends during training."""

import torch
from tests.model.conftest import Selecting, route


def test_a_loss_is_there_between_its_ends_alone(top_k: Selecting) -> None:
    selector = top_k(balance=("auxiliary", {"weight": 1.0}), balanced=(0.25, 0.5), z_weight=0.001)
    assert route(selector).selection.loss.item() < 0.1
    there = []
    for progress in (0.0, 0.2, 0.25, 0.49, 0.5, 0.9):
        selector.before_update(progress)
        there.append(route(selector).selection.loss.item() > 0.5)  # the z-loss stays, and is far smaller
        selector.after_update()
    assert there == [False, False, True, True, False, False]


def test_a_bias_that_is_switched_off_leaves_no_trace(top_k: Selecting) -> None:
    selector = top_k(balance=("bias", {"rate": 0.01}), balanced=(0.0, 0.5))
    for progress in (0.0, 0.2):
        selector.before_update(progress)
        route(selector)
        selector.after_update()
    assert selector.balance.bias_S.abs().sum() > 0
    for progress in (0.5, 0.75):
        selector.before_update(progress)
        routing = route(selector)
        selector.after_update()
        assert torch.equal(routing.slot_NK[:, 0], routing.selection.probs_NS.argmax(-1))
        assert not selector.balance.bias_S.any()
        assert not selector.balance.load_S.any()


def test_one_that_begins_later_begins_at_zero(top_k: Selecting) -> None:
    selector = top_k(balance=("bias", {"rate": 0.01}), balanced=(0.5, 1.0))
    moved = []
    for progress in (0.0, 0.4, 0.5):
        selector.before_update(progress)
        route(selector)
        selector.after_update()
        moved.append(bool(selector.balance.bias_S.any()))
    assert moved == [False, False, True]
