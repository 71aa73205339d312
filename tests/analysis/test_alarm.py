"""Test the alarm's martingale by hand and by enumeration, its false alarms at the boundary, and what it detects."""

import itertools

import numpy as np
import pytest
from scipy import stats

from speciate.analysis import alarm

RUNS, CHECKS, SLOTS, SELECTORS = 600, 24, 8, 4
TAU = alarm.TAU_SHARES / SLOTS
LEVEL = 0.05


def first_alarms(share_RLKS: np.ndarray) -> np.ndarray:
    """Return the check at which each run's alarm first fires (-1: never); all runs at once, slots side by side."""
    num_runs, num_selectors, num_checks, num_slots = share_RLKS.shape
    wealth = alarm.slot_wealth(np.moveaxis(share_RLKS, 2, 0).reshape(num_checks, -1), alarm.TAU_SHARES / num_slots)
    fired_KR = wealth.reshape(num_checks, num_runs, num_selectors * num_slots).mean(axis=2) >= 1 / LEVEL
    return np.where(fired_KR.any(axis=0), fired_KR.argmax(axis=0), -1)


def test_wealth_is_the_mean_over_stakes_and_starts_by_hand() -> None:
    tau, share_KS = 0.3, np.array([[0.5, 0.1], [0.9, 0.2], [0.4, 0.0]])
    for slot, until in itertools.product(range(2), range(1, 4)):
        members = []
        for stake in alarm.STAKES:
            bets = [1 + stake / tau * (share - tau) for share in share_KS[:until, slot]]
            starts = [np.prod(bets[start - 1 :]) / (start * (start + 1)) for start in range(1, until + 1)]
            # the stake reserved for all later starts: 1 - sum of the weights
            members.append(sum(starts) + 1 / (until + 1))
        assert alarm.slot_wealth(share_KS, tau)[until - 1, slot] == pytest.approx(np.mean(members))


def test_evidence_is_the_mean_over_slots_whatever_their_number() -> None:
    draw = np.random.default_rng(0)
    share_LKS = [draw.dirichlet(np.ones(slots), size=5) for slots in (8, 4)]
    by_selector, run = alarm.collapse_evidence(share_LKS)
    assert by_selector.shape == (2, 5)
    np.testing.assert_allclose(run, (8 * by_selector[0] + 4 * by_selector[1]) / 12)


def test_all_runs_at_once_are_each_run_alone() -> None:
    share = healthy_then(np.linspace(1 / 8, 0.9, CHECKS), 5, 9)
    alone = [alarm.collapse_evidence(list(share_LKS))[1] >= 1 / LEVEL for share_LKS in share]
    assert first_alarms(share).tolist() == [int(fired_K.argmax()) for fired_K in alone]


@pytest.mark.parametrize("high", [0.35, 0.6, 1.0])
def test_it_is_a_martingale_at_the_boundary_by_enumeration(high: float) -> None:
    # X is `high` or 0 with mean tau: enumerate every path of six checks, weighted by its probability
    chance = TAU / high
    expected = np.zeros(6)
    for path in itertools.product([0, 1], repeat=6):
        weight = np.prod([chance if up else 1 - chance for up in path])
        share_KS = high * np.array(path, dtype=float)[:, None]
        wealth_K = alarm.slot_wealth(share_KS, TAU)[:, 0]
        assert wealth_K.min() >= 0
        expected += weight * wealth_K
    np.testing.assert_allclose(expected, 1)


def test_below_the_boundary_it_is_expected_to_fall() -> None:
    draw = np.random.default_rng(1)
    share_KS = draw.binomial(1, 0.2, (CHECKS, 20_000)).astype(float)
    assert alarm.slot_wealth(share_KS, TAU)[-1].mean() < 0.9


def boundary(kind: str, draw: np.random.Generator) -> np.ndarray:
    """Draw shares whose mean given the past is exactly tau in every slot: the worst case that is still healthy."""
    shape = (RUNS, SELECTORS, CHECKS, SLOTS)
    if kind == "jumps":  # all or nothing
        return draw.binomial(1, TAU, shape).astype(float)
    if kind == "together":  # all slots of a run are equal, so averaging over slots does not help
        return np.broadcast_to(draw.binomial(1, TAU, (RUNS, 1, CHECKS, 1)), shape).astype(float)
    if kind == "bold":  # a fair gamble whose size depends on the past: all or nothing only after losses
        share = np.full(shape, TAU)
        for check in range(1, CHECKS):
            losing = share[:, :, :check].mean(axis=2) <= TAU
            jump = draw.binomial(1, TAU, losing.shape)
            share[:, :, check] = np.where(losing, jump, TAU + draw.choice([-0.2, 0.2], losing.shape))
        return share
    return draw.beta(30 * TAU, 30 * (1 - TAU), shape)


@pytest.mark.parametrize("kind", ["jumps", "together", "bold", "smooth"])
def test_false_alarms_at_the_boundary_keep_the_guarantee(kind: str) -> None:
    share_RLKS = boundary(kind, np.random.default_rng(2))
    assert share_RLKS.mean() == pytest.approx(TAU, abs=0.02)
    false_alarms = int((first_alarms(share_RLKS) >= 0).sum())
    assert false_alarms <= stats.binom.ppf(0.999, RUNS, LEVEL)


def test_the_guarantee_is_not_kept_by_never_firing() -> None:
    draw = np.random.default_rng(3)
    assert (first_alarms(boundary("together", draw)) >= 0).any()
    shape = (RUNS, SELECTORS, CHECKS, SLOTS)
    beyond = np.broadcast_to(draw.binomial(1, 2 * TAU, (RUNS, 1, CHECKS, 1)), shape).astype(float)
    assert (first_alarms(beyond) >= 0).mean() > 0.5


def healthy_then(share_K: np.ndarray, runs: int, seed: int) -> np.ndarray:
    """Draw balanced routers; one slot of one selector follows `share_K`, and the others share the rest."""
    draw = np.random.default_rng(seed)
    share = draw.dirichlet(np.full(SLOTS, 40.0), size=(runs, SELECTORS, len(share_K)))
    rest = share[:, 1, :, 1:] / share[:, 1, :, 1:].sum(axis=-1, keepdims=True)
    share[:, 1, :, 0] = share_K
    share[:, 1, :, 1:] = rest * (1 - share_K)[:, None]
    return share


def test_healthy_runs_never_alarm() -> None:
    share = np.random.default_rng(4).dirichlet(np.full(SLOTS, 40.0), size=(RUNS, SELECTORS, CHECKS))
    assert (first_alarms(share) == -1).all()


def test_a_collapse_is_found_soon() -> None:
    logistic = 1 / 8 + (0.9 - 1 / 8) / (1 + np.exp(-(np.arange(CHECKS) - 4) / 1.5))
    result = first_alarms(healthy_then(logistic, 100, 5))
    assert (result >= 0).all()
    assert np.median(result) <= 14


def test_a_late_collapse_is_found_too() -> None:
    late = np.where(np.arange(40) < 25, 1 / 8, 0.9)
    result = first_alarms(healthy_then(late, 50, 6))
    assert (result >= 25).all()
    # a single product that bets the most from the first check has lost nearly everything by then
    stake = alarm.STAKES[-1] / TAU
    single = np.cumprod(1 + stake * (late - TAU))
    assert single.max() / (SLOTS * SELECTORS) < 1 / LEVEL


def test_a_loss_that_wobbles_about_the_even_share_is_no_alarm_but_one_above_tau_is() -> None:
    assert (first_alarms(healthy_then(np.full(CHECKS, 0.29), 50, 7)) == -1).all()
    assert (first_alarms(healthy_then(np.full(CHECKS, 0.6), 50, 8)) >= 0).all()
