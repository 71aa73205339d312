import math

import numpy as np
import pytest

from speciate.analysis import alarm, collapse
from speciate.config.contracts.statistics import RULES

STEPS = np.arange(0, 110, 10)


def with_top(*tops: float, num_slots: int = 8) -> np.ndarray:
    """Make a selector whose first slot has `tops`; the others share the rest evenly."""
    return np.array([[top, *[(1 - top) / (num_slots - 1)] * (num_slots - 1)] for top in tops])


def history(share_KS: np.ndarray, num_groups: int = 60) -> collapse.History:
    """Make a selector of which every document has these shares; half of the documents are of each of two domains."""
    chosen_KGS = np.repeat(100 * share_KS[:, None], num_groups, axis=1)
    null_S = np.full(share_KS.shape[1], 1 / share_KS.shape[1])
    return collapse.History(share_KS, alarm.Observations(chosen_KGS, np.arange(num_groups) % 2, null_S))


def test_s1_needs_three_checks_in_a_row() -> None:
    share = with_top(0.7, 0.7, 0.5, 0.61, 0.61, 0.61, 0.9, 0.6)
    assert collapse.rule_60_percent([share]).tolist() == [False] * 5 + [True, True, False]
    assert collapse.rule_60_percent([with_top(0.7, 0.7)]).tolist() == [False, False]
    assert collapse.rule_60_percent([with_top(0.7)]).tolist() == [False]
    # three checks of three different slots count as well: the rule asks for any expert
    turns = np.stack([np.roll(with_top(0.7)[0], turn) for turn in range(3)])
    assert collapse.rule_60_percent([turns]).tolist() == [False, False, True]


def test_s1_as_released_has_one_counter_over_all_layers() -> None:
    # two layers take turns above .60, so the released counter reads 1, 2, 3, and no layer's own exceeds 1
    first, second = with_top(0.7, 0.3, 0.7, 0.3), with_top(0.3, 0.7, 0.3, 0.7)
    assert collapse.rule_60_percent([first, second]).tolist() == [False, False, True, True]
    assert not collapse.rule_60_percent([first]).any()
    assert not collapse.rule_60_percent([second]).any()
    # a check at which no layer is above starts the counter anew: 1, 2, 0, 1, 2, 3
    paused = [with_top(0.7, 0.3, 0.5, 0.7, 0.3, 0.7), with_top(0.3, 0.7, 0.5, 0.3, 0.7, 0.3)]
    assert collapse.rule_60_percent(paused).tolist() == [False] * 5 + [True]


def test_a_layer_without_decisions_hides_no_other() -> None:
    idle = np.full((4, 8), np.nan)
    assert collapse.rule_60_percent([with_top(*[0.7] * 4), idle]).tolist() == [False, False, True, True]
    assert collapse.rule_3_over_e([idle, with_top(*[0.7] * 4)]).tolist() == [True] * 4


def test_turn_taking_layers_fire_the_run_and_no_layer() -> None:
    shares = {
        "a": with_top(*[0.7, 0.3] * 5, 0.7),
        "b": with_top(*[0.3, 0.7] * 5, 0.3),
    }
    steps = found(shares)
    assert steps["any", "rule_60_percent"] == 20
    assert math.isnan(steps["a", "rule_60_percent"])
    assert math.isnan(steps["b", "rule_60_percent"])


def test_s1_on_the_published_run() -> None:
    # largest shares that moe-emergence logged at steps 100 to 500; its log calls a collapse at 500
    assert collapse.rule_60_percent([with_top(0.625, 0.55, 0.737, 0.656, 0.736)]).tolist() == [False] * 4 + [True]


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
    assert collapse.rule_3_over_e([share[None]]).tolist() == [fires]
    assert collapse.rule_3_over_e([np.full((1, 8), 1 / 8), share[None]]).tolist() == [fires]


def found(shares: dict[str, np.ndarray], armed_step: float = 0.0, num_groups: int = 60) -> dict[tuple[str, str], float]:
    histories = {name: history(share, num_groups) for name, share in shares.items()}
    verdicts = collapse.apply_rules(histories, STEPS, armed_step, 0.05)
    return {(one.selector, one.rule): one.first_step for one in verdicts}


def test_each_rule_on_each_selector_and_on_the_run() -> None:
    shares = {"a": with_top(*[0.125] * 11), "b": with_top(*[0.3] * 4, *[0.95] * 7), "c": with_top(*[0.39] * 11)}
    steps = found(shares)
    assert list(steps) == [(selector, rule) for rule in RULES for selector in ("a", "b", "c", "any")]
    assert [steps["b", "rule_60_percent"], steps["any", "rule_60_percent"]] == [60, 60]
    assert [steps["b", "rule_3_over_e"], steps["c", "rule_3_over_e"], steps["any", "rule_3_over_e"]] == [40, 0, 0]
    # 60 documents with .95 of their tokens on one slot of eight are enough at the first check
    assert [steps["b", "alarm"], steps["any", "alarm"]] == [40, 40]
    assert all(math.isnan(steps["a", rule]) for rule in RULES)
    assert math.isnan(steps["c", "alarm"])


def test_what_happens_before_warm_up_counts_for_nothing() -> None:
    shares = {"a": with_top(*[0.95] * 4, *[0.125] * 7)}
    assert [found(shares)["a", rule] for rule in RULES] == [20, 0, 0]
    assert [found(shares, 20)["a", rule] for rule in ("rule_3_over_e", "alarm")] == [20, 20]
    assert math.isnan(found(shares, 20)["a", "rule_60_percent"])  # two of the three checks remain
    assert all(math.isnan(step) for step in found(shares, 40).values())
    assert all(math.isnan(step) for step in found(shares, 1000).values())  # never armed


def test_a_layers_alarm_is_not_the_runs() -> None:
    # 17 documents at .8: enough for the layer's own guarantee, not for one guarantee over ten layers
    shares = {"a": with_top(*[0.8] * 11)} | {f"even{number}": with_top(*[0.125] * 11) for number in range(9)}
    steps = found(shares, num_groups=17)
    assert steps["a", "alarm"] == 0
    assert steps["any", "alarm"] > steps["a", "alarm"]
    alone = found({"a": shares["a"]}, num_groups=17)
    assert alone["any", "alarm"] == alone["a", "alarm"] == steps["a", "alarm"]


def test_how_many_checks_a_total_collapse_needs_by_each_rule() -> None:
    def needed(num_slots: int, num_groups: int) -> dict[str, float]:
        histories = {"a": history(with_top(*[1 / num_slots] * 11, num_slots=num_slots), num_groups)}
        return {
            one.rule: one.checks_to_fire
            for one in collapse.apply_rules(histories, STEPS, 0, 0.05)
            if one.selector == "any"
        }

    assert needed(8, 60) == {"rule_60_percent": 3, "rule_3_over_e": 1, "alarm": 1}
    # of two slots, 3/E cannot be exceeded and Gini is at most .5, but H / ln E falls below .7
    assert needed(2, 60) == {"rule_60_percent": 3, "rule_3_over_e": 1, "alarm": 1}
    assert needed(2, 4)["alarm"] != needed(2, 4)["alarm"]  # NaN: four documents cannot tell


def test_a_run_without_selectors_has_no_verdicts() -> None:
    assert collapse.apply_rules({}, STEPS, 0, 0.05) == []


@pytest.mark.parametrize(
    ("loads", "q_value", "excess_low", "state"),
    [
        (["even", "collapsed"], 0.001, 0.2, "collapsed"),  # the load alone decides, however much the router knows
        (["collapsed", "uneven"], math.nan, math.nan, "collapsed"),
        (["even", "uneven"], 0.001, 0.2, "uneven"),
        (["uneven"], 0.5, -math.inf, "uneven"),  # a control that began there has not collapsed
        (["even"], 0.001, 0.2, "specialised"),
        (["even"], 0.05, 0.2, "specialised"),
        (["even"], 0.06, 0.2, "indifferent"),  # not significant
        (["even"], 0.001, 0.0, "indifferent"),  # significant, as frozen routers are, and not above them
        (["even"], 0.001, -math.inf, "indifferent"),  # the run is a control
        (["even"], 0.001, math.nan, "undecided"),  # there is no control to compare with
        (["even"], 0.06, math.nan, "indifferent"),
        (["even"], math.nan, 0.2, "indifferent"),
    ],
)
def test_states(loads: list[str], q_value: float, excess_low: float, state: str) -> None:
    assert collapse.run_state(loads, q_value, excess_low, 0.05, use="used") == state


@pytest.mark.parametrize(
    ("use", "q_value", "excess_low", "state"),
    [
        ("idle", 0.001, 0.2, "idle"),  # it tells the domain, and nothing depends on it
        ("idle", 0.5, math.nan, "idle"),
        ("undecided", 0.001, 0.2, "undecided"),
        ("undecided", 0.5, 0.2, "indifferent"),
        ("undecided", 0.001, -math.inf, "indifferent"),
    ],
)
def test_only_a_choice_that_matters_is_specialised(use: str, q_value: float, excess_low: float, state: str) -> None:
    assert collapse.run_state(["even"], q_value, excess_low, 0.05, use=use) == state
    assert collapse.run_state(["collapsed"], q_value, excess_low, 0.05, use=use) == "collapsed"


@pytest.mark.parametrize(
    ("beyond", "learns", "began", "ratio", "state"),
    [
        (False, True, True, 1.0, "even"),  # it began uneven, and balanced itself
        (True, True, False, 1.0, "collapsed"),
        (True, True, True, 2.0, "collapsed"),  # uneven by chance at first, and by preference at the end
        (True, True, True, 1.9, "uneven"),
        (True, True, True, math.nan, "collapsed"),  # at first it had no drift at all
        (True, False, False, 100.0, "uneven"),  # a frozen router follows its inputs, and never learns
    ],
)
def test_load_states(beyond: bool, learns: bool, began: bool, ratio: float, state: str) -> None:
    assert collapse.load_state(beyond, learns=learns, began_beyond=began, drift_ratio=ratio) == state


def test_collapse_is_by_either_limit_beyond_rounding() -> None:
    limits = {"max_share_limit": 0.5, "effective_limit": 4.0}
    assert collapse.is_beyond_limits(0.501, 5.0, **limits)
    assert collapse.is_beyond_limits(0.4, 3.99, **limits)
    assert not collapse.is_beyond_limits(0.5 + 1e-12, 4.0 - 1e-12, **limits)


def test_all_of_two_slots_on_one_is_a_collapse_and_an_alarm() -> None:
    share_KS = np.tile([1.0, 0.0], (24, 1))
    result = collapse.apply_rules({"importance": history(share_KS)}, np.arange(24), 6, 0.05)
    assert all(one.first_step == 6 for one in result if one.rule == "alarm")
    even = collapse.apply_rules({"importance": history(np.tile([0.6, 0.4], (24, 1)))}, np.arange(24), 6, 0.05)
    assert not any(one.fired for one in even if one.rule == "alarm")
