"""Test the alarm of a training that runs: the evidence of `analysis.alarm`, and its guarantee where K is unknown."""

import json
import math

import numpy as np
import pytest

from speciate.analysis import alarm
from speciate.watching.collapse_alarm import CollapseAlarm
from speciate.watching.counts import CheckCounts, SelectorCounts, WatchedSelector

EXPERTS, DOCUMENTS, CHECKS = 8, 20, 12
EVEN = np.full(EXPERTS, 1 / EXPERTS)


def check(draw: np.random.Generator, shares: list[np.ndarray], documents: int = DOCUMENTS) -> CheckCounts:
    """Draw a check of selectors whose documents choose by these shares."""
    selectors = [
        SelectorCounts(
            WatchedSelector(f"model.layers.{layer}.gate", layer, EXPERTS, 1.0),
            draw.multinomial(10, share, size=documents).astype(float),
            EVEN,
        )
        for layer, share in enumerate(shares)
    ]
    return CheckCounts(tuple(selectors), np.arange(documents) % 2)


def with_top(top: float, expert: int = 3) -> np.ndarray:
    share = np.full(EXPERTS, (1 - top) / (EXPERTS - 1))
    share[expert] = top
    return share


def test_the_evidence_is_that_of_a_finished_run() -> None:
    draw = np.random.default_rng(0)
    checks = [check(draw, [EVEN, with_top(0.3 + 0.05 * place)]) for place in range(CHECKS)]
    live = CollapseAlarm(0.05, CHECKS)
    found = []
    for step, counts in enumerate(checks):
        live.add(step, counts)
        found.append([*live.log_wealth_L, live.log_wealth])
    observed = [
        alarm.Observations(
            np.stack([counts.selectors[layer].chosen_GS for counts in checks]), checks[0].domain_G, EVEN, 1.0
        )
        for layer in range(2)
    ]
    by_selector_LK, run_K = alarm.log_wealth(observed)
    np.testing.assert_allclose(np.array(found).T, [*by_selector_LK, run_K], rtol=1e-9)
    fired = np.flatnonzero(run_K >= math.log(1 / 0.05))
    assert live.raised is not None and live.raised.step == fired[0]
    assert live.checks_to_fire(checks[0]) == max(alarm.checks_to_fire(one, 0.05, 2) for one in observed)


def test_it_says_which_layer_and_expert_and_since_when() -> None:
    draw = np.random.default_rng(1)
    live = CollapseAlarm(0.05, CHECKS)
    tops = [0.125, 0.6, 0.125, 0.125, 0.6, 0.95, 0.97, 0.97, 0.97, 0.97, 0.97, 0.97]
    for place, top in enumerate(tops):
        raised = live.add(100 * (place + 1), check(draw, [EVEN, with_top(top, expert=5), EVEN]))
        if raised is not None:
            break
    assert raised is not None
    assert (raised.layer, raised.path, raised.expert) == (1, "model.layers.1.gate", 5)
    # above the limit of one half at step 200, below it at 300, and above from 500 on
    assert (raised.since, raised.others) == (500, ())
    assert raised.share == pytest.approx(top, abs=0.06) and raised.limit == pytest.approx(0.5)
    assert "layer 1" in raised.sentence and "expert 5" in raised.sentence and "since step 500" in raised.sentence


@pytest.mark.parametrize("planned", [True, False])
def test_a_run_at_the_limit_raises_it_no_more_often_than_promised(planned: bool) -> None:
    """Two slots of eight at the limit are the worst load that is healthy; documents of one choice the worst texts."""
    draw, runs, fired = np.random.default_rng(2), 300, 0
    share = np.array([0.5, 0.5, *[0.0] * 6])
    for _ in range(runs):
        live = CollapseAlarm(0.2, CHECKS if planned else None)
        # the same documents at every check, as on a probe
        chosen_GS = draw.multinomial(1, share, size=DOCUMENTS).astype(float)
        one = SelectorCounts(WatchedSelector("gate", 0, EXPERTS, 1.0), chosen_GS, EVEN)
        counts = CheckCounts((one,), np.zeros(DOCUMENTS, dtype=np.int64))
        for step in range(CHECKS):
            live.add(step, counts)
        fired += live.raised is not None
    assert 0 < fired <= 0.2 * runs


def test_a_total_collapse_raises_it_after_the_checks_that_it_names() -> None:
    collapsed = np.eye(EXPERTS)[0]
    for num_checks in (CHECKS, None, 400):
        for documents in (2, 5, 8, 12, 20):
            live = CollapseAlarm(0.05, num_checks)
            counts = check(np.random.default_rng(3), [collapsed, EVEN], documents)
            named, first = live.checks_to_fire(counts), math.nan
            for step in range(1, 401):
                # the other selector's evidence is as small as it can be
                if live.add(step, check(np.random.default_rng(step), [collapsed, EVEN], documents)) is not None:
                    first = step
                    break
            if math.isnan(named):
                assert math.isnan(first)
            else:
                assert first <= named


def test_checks_beyond_the_plan_count_for_nothing() -> None:
    draw = np.random.default_rng(4)
    live = CollapseAlarm(0.05, 1)
    live.add(1, check(draw, [EVEN]))
    assert live.used_up
    assert live.add(2, check(draw, [np.eye(EXPERTS)[0]])) is None and live.raised is None


def test_a_saved_alarm_goes_on_where_it_was() -> None:
    draw = np.random.default_rng(5)
    checks = [check(draw, [EVEN, with_top(0.2 + 0.07 * place)]) for place in range(CHECKS)]
    whole, resumed = CollapseAlarm(0.05, CHECKS), CollapseAlarm(0.05, CHECKS)
    for step, counts in enumerate(checks):
        whole.add(step, counts)
        resumed.add(step, counts)
        kept = json.loads(json.dumps(resumed.state_dict()))
        resumed = CollapseAlarm(0.05, CHECKS)
        resumed.load_state_dict(kept)
    assert whole.raised is not None and resumed.raised == whole.raised
    assert resumed.state_dict() == whole.state_dict()
    with pytest.raises(ValueError, match=r"the saved watch has num_checks 12, and this one 13"):
        CollapseAlarm(0.05, CHECKS + 1).load_state_dict(kept)


def test_a_selector_that_decided_nothing_is_no_evidence() -> None:
    live = CollapseAlarm(0.05, 2)
    nothing = SelectorCounts(WatchedSelector("gate", 0, EXPERTS, 1.0), np.zeros((3, EXPERTS)), EVEN)
    live.add(1, CheckCounts((nothing,), np.zeros(3, dtype=np.int64)))
    assert live.log_wealth == pytest.approx(math.log(1 / 2))
    assert math.isnan(nothing.measures()["max_vio"])
    assert live.above_since == [[-1] * EXPERTS]


def test_measures_are_those_of_published_counts() -> None:
    """Check moe-emergence's layer 9 at collapse: 2.77 effective experts, MaxVio 4.96."""
    share = np.array([0.034, 0.745, 0.045, 0.021, 0.018, 0.052, 0.076, 0.010])
    one = SelectorCounts(WatchedSelector("gate", 9, EXPERTS, 1.0), share[None] * 1000, EVEN)
    values = CheckCounts((one,), np.zeros(1, dtype=np.int64)).values()
    assert values["moe_load/max_vio/layer_9"] == pytest.approx(4.96, abs=0.01)  # the shares are rounded
    assert values["moe_load/effective_share/layer_9"] * EXPERTS == pytest.approx(2.77, abs=0.02)
    assert values["moe_load/cv/layer_9"] == pytest.approx(np.std(share) / np.mean(share))
    assert values["moe_load/dead_share/layer_9"] == 0
    assert values["moe_load/unevenness/layer_9"] > 1
