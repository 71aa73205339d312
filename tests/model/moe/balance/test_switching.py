"""Test balancing that starts or ends during training."""

import numpy as np
import pytest
import torch
from tests.model.conftest import WIDTH, Selecting, route


def test_a_loss_is_there_between_its_ends_alone(top_k: Selecting) -> None:
    selector = top_k(balance=("auxiliary", {"weight": 1.0}), balanced=((0.25, 0.5),), z_weight=0.001)
    assert route(selector).selection.loss.item() < 0.1
    there = []
    for progress in (0.0, 0.2, 0.25, 0.49, 0.5, 0.9):
        selector.before_update(progress)
        there.append(route(selector).selection.loss.item() > 0.5)  # the z-loss stays, and is far smaller
        selector.after_update()
    assert there == [False, False, True, True, False, False]


def test_a_bias_that_is_switched_off_leaves_no_trace(top_k: Selecting) -> None:
    selector = top_k(balance=("bias", {"rate": 0.01}), balanced=((0.0, 0.5),))
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
    selector = top_k(balance=("bias", {"rate": 0.01}), balanced=((0.5, 1.0),))
    moved = []
    for progress in (0.0, 0.4, 0.5):
        selector.before_update(progress)
        route(selector)
        selector.after_update()
        moved.append(bool(selector.balance.bias_S.any()))
    assert moved == [False, False, True]


STEPS = 10
PAUSED = ((0.0, 0.3), (0.6, 1.0))
"""Of ten steps, balancing is on in 0 to 2 and in 6 to 9; 3 / 10 is the same number as .3, though neither is exact."""
ON = [True] * 3 + [False] * 3 + [True] * 4


def test_a_pause_of_a_bias_is_what_a_loop_by_hand_computes(top_k: Selecting) -> None:
    """The biases move against the load only while balancing is on, and begin at 0 after the pause."""
    selector = top_k(balance=("bias", {"rate": 0.01}), balanced=PAUSED)
    weight_SD = selector.scorer.weight.detach().double().numpy()
    bias_S, draw = np.zeros(8), torch.Generator().manual_seed(3)
    for step, on in enumerate(ON):
        x_ND = torch.randn(64, WIDTH, generator=draw) + 0.5
        selector.before_update(step / STEPS)
        routing = route(selector, x_ND)
        logits_NS = x_ND.double().numpy() @ weight_SD.T
        probs_NS = np.exp(logits_NS) / np.exp(logits_NS).sum(1, keepdims=True)
        bias_S = bias_S if on else np.zeros(8)
        chosen_N = (probs_NS + bias_S).argmax(1)
        assert routing.slot_NK[:, 0].tolist() == chosen_N.tolist()
        selector.after_update()
        if on:
            load_S = np.bincount(chosen_N, minlength=8)
            bias_S = bias_S + 0.01 * np.sign(load_S.mean() - load_S)
        np.testing.assert_allclose(selector.balance.bias_S.numpy(), bias_S, atol=1e-6)
        assert bool(bias_S.any()) == on


def test_a_pause_of_a_loss_is_what_a_loop_by_hand_computes(top_k: Selecting) -> None:
    selector = top_k(balance=("auxiliary", {"weight": 0.5}), balanced=PAUSED)
    for step, on in enumerate(ON):
        selector.before_update(step / STEPS)
        selection = route(selector).selection
        share_S, mean_S = (part.detach().double().mean(0) for part in (selection.chosen_NS, selection.probs_NS))
        expected = 0.5 * 8 * float(share_S @ mean_S) if on else 0.0
        assert selection.loss.item() == pytest.approx(expected, rel=1e-5)
        selector.after_update()
