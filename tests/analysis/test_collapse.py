import math

import numpy as np
import pytest

from speciate.analysis import collapse, load
from speciate.config.contracts.statistics import RULES

STEPS = np.arange(0, 110, 10)


def with_top(*tops: float, num_slots: int = 8) -> np.ndarray:
    """Make a selector whose first slot has `tops`; the others share the rest evenly."""
    return np.array([[top, *[(1 - top) / (num_slots - 1)] * (num_slots - 1)] for top in tops])


def test_s1_needs_three_checks_in_a_row() -> None:
    share = with_top(0.7, 0.7, 0.5, 0.61, 0.61, 0.61, 0.9, 0.6)
    assert collapse.rule_60_percent(share).tolist() == [False] * 5 + [True, True, False]
    assert collapse.rule_60_percent(with_top(0.7, 0.7)).tolist() == [False, False]
    assert collapse.rule_60_percent(with_top(0.7)).tolist() == [False]
    # three checks of three different slots count as well: the rule asks for any expert
    assert collapse.rule_60_percent(np.stack([np.roll(with_top(0.7)[0], turn) for turn in range(3)])).tolist() == [
        False,
        False,
        True,
    ]


def test_s1_on_the_published_run() -> None:
    # largest shares that moe-emergence logged at steps 100 to 500; its log calls a collapse at 500
    assert collapse.rule_60_percent(with_top(0.625, 0.55, 0.737, 0.656, 0.736)).tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("share", "fires"),
    [
        (np.full(8, 1 / 8), False),
        (with_top(0.37)[0], False),  # below 3/8; Gini .245, H/ln 8 .92
        (with_top(0.38)[0], True),  # above 3/8
        (np.array([0.3, 0.3, 0.2, 0.15, 0.0125, 0.0125, 0.0125, 0.0125]), True),  # Gini .52, H/ln 8 .74
        (np.array([0.36, 0.34, 0.3, 0, 0, 0, 0, 0]), True),  # H/ln 8 .53
    ],
)
def test_s4_by_each_of_its_criteria(share: np.ndarray, fires: bool) -> None:
    assert collapse.rule_3_over_e(share[None]).tolist() == [fires]


def found(shares: dict[str, np.ndarray], armed_step: float = 0.0) -> dict[tuple[str, str], float]:
    verdicts = collapse.apply_rules(shares, STEPS, armed_step, 0.05)
    return {(one.selector, one.rule): one.first_step for one in verdicts}


def test_each_rule_on_each_selector_and_on_the_run() -> None:
    shares = {"a": with_top(*[0.125] * 11), "b": with_top(*[0.3] * 4, *[0.95] * 7), "c": with_top(*[0.39] * 11)}
    steps = found(shares)
    assert list(steps) == [(selector, rule) for rule in RULES for selector in ("a", "b", "c", "any")]
    assert [steps["b", "rule_60_percent"], steps["any", "rule_60_percent"]] == [60, 60]
    assert [steps["b", "rule_3_over_e"], steps["c", "rule_3_over_e"], steps["any", "rule_3_over_e"]] == [40, 0, 0]
    assert 50 < steps["b", "alarm"] <= steps["any", "alarm"] <= 100
    assert all(math.isnan(steps["a", rule]) for rule in RULES)
    assert math.isnan(steps["c", "alarm"])


def test_what_happens_before_warm_up_counts_for_nothing() -> None:
    shares = {"a": with_top(*[0.95] * 4, *[0.125] * 7)}
    assert [found(shares)["a", rule] for rule in ("rule_60_percent", "rule_3_over_e")] == [20, 0]
    assert [found(shares, 20)["a", rule] for rule in ("rule_3_over_e",)] == [20]
    assert math.isnan(found(shares, 20)["a", "rule_60_percent"])  # two of the three checks remain
    assert all(math.isnan(step) for step in found(shares, 40).values())


def test_a_run_without_selectors_has_no_verdicts() -> None:
    assert collapse.apply_rules({}, STEPS, 0, 0.05) == []


@pytest.mark.parametrize(
    ("collapsed", "q_value", "excess_low", "state"),
    [
        (True, 0.001, 0.2, "collapsed"),  # the load alone decides, however much the router knows
        (True, math.nan, math.nan, "collapsed"),
        (False, 0.001, 0.2, "specialised"),
        (False, 0.05, 0.2, "specialised"),
        (False, 0.06, 0.2, "indifferent"),  # not significant
        (False, 0.001, 0.0, "indifferent"),  # significant, as frozen routers are, and not above them
        (False, 0.001, -math.inf, "indifferent"),  # the run is a control
        (False, 0.001, math.nan, "undecided"),  # there is no control to compare with
        (False, 0.06, math.nan, "indifferent"),
        (False, math.nan, 0.2, "indifferent"),
    ],
)
def test_states(collapsed: bool, q_value: float, excess_low: float, state: str) -> None:
    assert collapse.run_state(collapsed, q_value, excess_low, 0.05) == state


def test_collapse_is_by_the_lower_bound() -> None:
    assert collapse.has_collapsed(0.376, 8)
    assert not collapse.has_collapsed(0.375, 8)


@pytest.mark.parametrize(
    ("num_slots", "expected"), [(1, 1.0), (2, 5 / 6), (3, 7 / 9), (4, 3 / 4), (5, 3 / 5), (8, 3 / 8), (64, 3 / 64)]
)
def test_of_few_slots_the_limit_can_be_exceeded(num_slots: int, expected: float) -> None:
    assert load.share_limit(3.0, num_slots) == pytest.approx(expected)
    assert collapse.has_collapsed(1.0, num_slots) is (num_slots > 1)


def test_all_of_two_slots_on_one_is_a_collapse_and_an_alarm() -> None:
    share_KS = np.tile([1.0, 0.0], (24, 1))
    result = collapse.apply_rules({"importance": share_KS}, np.arange(24), 6, 0.05)
    assert all(one.fired for one in result if one.rule == "alarm")
    even = collapse.apply_rules({"importance": np.tile([0.6, 0.4], (24, 1))}, np.arange(24), 6, 0.05)
    assert not any(one.fired for one in even if one.rule == "alarm")
