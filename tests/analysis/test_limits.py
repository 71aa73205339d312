"""Test the limits of collapse by hand, and against the published loads of healthy and of collapsed models."""

import math
import pathlib

import numpy as np
import pandas as pd
import pytest

from speciate.analysis import collapse, load

PUBLISHED = pd.read_csv(pathlib.Path(__file__).parent / "published_loads.csv")
"""Tokens per expert, summed over five kinds of text, from the routing statistics that the authors of OLMoE published
(github.com/allenai/OLMoE, scripts/routing_output, Apache-2.0): OLMoE-1B-7B and Mixtral-8x7B, all choices and first
choices."""


def published(model: str, num_chosen: int) -> np.ndarray:
    """Return the shares by layer (0, 7, 15) and expert."""
    rows = PUBLISHED[(PUBLISHED["model"] == model) & (PUBLISHED["num_chosen"] == num_chosen)]
    return load.shares(np.array([[float(count) for count in text.split()] for text in rows["counts"]]))


def beyond(share: np.ndarray, num_chosen: float) -> bool:
    num_slots = len(share)
    return collapse.is_beyond_limits(
        float(share.max()),
        float(load.effective_slots(share)),
        max_share_limit=load.max_share_limit(num_slots, num_chosen),
        effective_limit=load.effective_slots_limit(num_slots, num_chosen),
    )


@pytest.mark.parametrize(
    ("num_slots", "num_chosen", "largest", "effective"),
    [
        (1, 1, 1.0, 1.0),
        (2, 1, 0.794, math.sqrt(2)),
        (3, 1, 0.693, math.sqrt(3)),
        (4, 1, 0.630, 2.0),
        (8, 1, 0.5, 4.0),
        (8, 2, 0.315, 4.0),
        (8, 4, 0.198, math.sqrt(32)),
        (16, 1, 0.397, 8.0),
        (64, 1, 0.25, 32.0),
        (64, 8, 0.0625, 32.0),
    ],
)
def test_limits_by_hand(num_slots: int, num_chosen: int, largest: float, effective: float) -> None:
    assert load.max_share_limit(num_slots, num_chosen) == pytest.approx(largest, abs=5e-4)
    assert load.effective_slots_limit(num_slots, num_chosen) == pytest.approx(effective)


@pytest.mark.parametrize("num_slots", [2, 3, 8, 64])
@pytest.mark.parametrize("num_chosen", [1, 2, 3, 8])
def test_an_even_load_is_within_and_a_total_collapse_beyond(num_slots: int, num_chosen: int) -> None:
    if num_chosen > num_slots:
        return
    even, total = np.full(num_slots, 1 / num_slots), np.zeros(num_slots)
    total[:num_chosen] = 1 / num_chosen
    assert not beyond(even, num_chosen)
    # where every slot is chosen, no load can be uneven
    assert beyond(total, num_chosen) is (num_chosen < num_slots)


@pytest.mark.parametrize(
    ("model", "num_chosen", "multiples"),
    [
        ("OLMoE-1B-7B", 8, [2.10, 2.75, 2.73]),
        ("OLMoE-1B-7B", 1, [6.71, 7.36, 8.22]),
        ("Mixtral-8x7B", 2, [1.18, 1.07, 1.15]),
        ("Mixtral-8x7B", 1, [1.26, 1.15, 1.15]),
    ],
)
def test_published_healthy_loads_are_within(model: str, num_chosen: int, multiples: list[float]) -> None:
    share_LS = published(model, num_chosen)
    assert (share_LS.shape[1] * share_LS.max(axis=1)).tolist() == pytest.approx(multiples, abs=0.006)
    assert not any(beyond(share_S, num_chosen) for share_S in share_LS)


def test_the_other_systems_limit_condemns_a_published_healthy_model() -> None:
    # E max f of OLMoE's first choices is 6.7 to 8.2, so 3/E calls every layer collapsed
    share_LS = published("OLMoE-1B-7B", 1)
    assert [bool(collapse.rule_3_over_e([share_S[None]])[0]) for share_S in share_LS] == [True, True, True]


def test_a_published_collapse_is_beyond_both_limits() -> None:
    # moe-emergence without balancing, layer 9, on its whole evaluation set at step 500; printed to three digits
    share = np.array([0.034, 0.745, 0.045, 0.021, 0.018, 0.052, 0.076, 0.010])
    share = share / share.sum()
    assert load.effective_slots(share) == pytest.approx(2.77, abs=0.015)
    assert load.max_violation(share) == pytest.approx(4.96, abs=0.01)
    assert load.gini(share) == pytest.approx(0.69, abs=0.005)
    assert share.max() > load.max_share_limit(8)
    assert load.effective_slots(share) < load.effective_slots_limit(8)


@pytest.mark.parametrize("taken", [4, 8, 16])
def test_few_of_many_slots_are_a_collapse_by_the_effective_number_alone(taken: int) -> None:
    share = np.zeros(64)
    share[:taken] = 1 / taken
    assert share.max() <= load.max_share_limit(64)
    assert beyond(share, 1)
