"""Test the alarm's bets by hand and by enumeration, its guarantee about the population, and how soon it fires."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from speciate.analysis import alarm, load
from speciate.analysis.alarm import Observations

LEVEL = 0.05
LIMIT = math.log(1 / LEVEL)


def observe(share_KGS: np.ndarray, domain_G: np.ndarray | None = None, num_chosen: float = 1.0) -> Observations:
    """Make a selector with an even null of which each document has these shares."""
    domain_G = np.arange(share_KGS.shape[1]) % 2 if domain_G is None else domain_G
    null_S = np.full(share_KGS.shape[2], 1 / share_KGS.shape[2])
    return Observations(64.0 * share_KGS, domain_G, null_S, num_chosen)


def fires(observed: Observations) -> float:
    """Return the number of the check at which the selector's alarm first fires, from 1; NaN: never."""
    ((wealth_K,), _) = alarm.log_wealth([observed])
    return float(np.argmax(wealth_K >= LIMIT) + 1) if (wealth_K >= LIMIT).any() else math.nan


def test_groups_of_a_domain_weigh_the_same_and_so_do_the_domains() -> None:
    domain_G = np.array([0, 0, 0, 2, 2])  # nothing of domain 1
    present_KG = np.array([[True] * 5, [True, False, True, True, False], [False] * 5])
    expected = [[5 / 6, 5 / 6, 5 / 6, 5 / 4, 5 / 4], [0.75, 0, 0.75, 1.5, 0], [0] * 5]
    np.testing.assert_allclose(alarm.share_weights(present_KG, domain_G), expected)


def test_one_check_by_hand() -> None:
    # two domains of two and one documents, so weights of .75, .75 and 1.5; three slots, of which one fits at tau .693
    share_GS = np.array([[0.9, 0.1, 0.0], [0.8, 0.0, 0.2], [1.0, 0.0, 0.0]])
    tau = 3 ** (-1 / 3)
    members = []
    for stake in (0.5, 0.75, 0.95):
        product_S = [
            (1 + stake / 2 * (share_GS[0, slot] - tau) / tau)
            * (1 + stake / 2 * (share_GS[1, slot] - tau) / tau)
            * (1 + stake * (share_GS[2, slot] - tau) / tau)
            for slot in range(3)
        ]

        def b(share: float, stake: float = stake) -> float:
            return (1 + stake * (share - tau) / (tau * 1.5)) ** 3

        members.append(sum(product_S) / (b(tau) + b(1 - tau) + b(0)))
    result = alarm.check_evidence(observe(share_GS[None], np.array([0, 0, 1])))
    assert result[0] == pytest.approx(math.log(np.mean(members)))


def test_checks_add_up_and_selectors_are_averaged() -> None:
    draw = np.random.default_rng(0)
    observed = [observe(draw.dirichlet(np.ones(slots), size=(5, 6))) for slots in (8, 4)]
    evidence = np.exp([alarm.check_evidence(one) for one in observed])
    by_selector, run = alarm.log_wealth(observed)
    np.testing.assert_allclose(np.exp(by_selector), np.cumsum(evidence, axis=1) / 5)
    np.testing.assert_allclose(np.exp(run), np.exp(by_selector).mean(axis=0))


@pytest.mark.parametrize("num_slots", [2, 3, 4, 8])
@pytest.mark.parametrize("domain_G", [[0, 0, 1, 1], [0, 0, 0, 1]])
def test_it_is_an_e_value_by_enumeration(num_slots: int, domain_G: list[int]) -> None:
    """Sum over every way in which four documents may each choose one slot, at the worst healthy shares."""
    tau = load.max_share_limit(num_slots)
    at_limit = int(1 / tau)
    share_S = np.zeros(num_slots)
    share_S[:at_limit] = tau
    share_S[at_limit] = 1 - at_limit * tau
    # the domains may differ, as long as their mean is at the limit
    shift = min(tau, 1 - tau, share_S[at_limit]) / 2
    for by_domain in (0.0, shift):
        share_RS = np.tile(share_S, (2, 1))
        share_RS[:, 0] += [by_domain, -by_domain]
        share_RS[:, at_limit] -= [by_domain, -by_domain]
        expected = 0.0
        for choice in itertools.product(range(num_slots), repeat=4):
            chance = math.prod(share_RS[domain, slot] for domain, slot in zip(domain_G, choice, strict=True))
            if chance > 0:
                share_GS = np.eye(num_slots)[list(choice)]
                expected += chance * math.exp(alarm.check_evidence(observe(share_GS[None], np.array(domain_G)))[0])
        assert expected <= 1 + 1e-12
        if by_domain == 0 and domain_G == [0, 0, 1, 1]:
            # with equal weights and equal domains nothing is given away
            assert expected == pytest.approx(1)


def test_a_relative_share_is_an_e_value_too() -> None:
    # a Mixture-of-Depths that runs one token in eight: its relative share is at tau where .964 skip
    null_S, tau = np.array([0.875, 0.125]), load.max_share_limit(2)
    limit = tau * 7 / (1 - tau + 7 * tau)
    expected = 0.0
    for skips in range(7):
        share_GS = np.array([[1.0, 0.0]] * skips + [[0.0, 1.0]] * (6 - skips))
        one = Observations(share_GS[None], np.zeros(6, dtype=np.int64), null_S)
        expected += stats.binom.pmf(skips, 6, limit) * math.exp(alarm.check_evidence(one)[0])
    assert limit == pytest.approx(0.9642, abs=1e-4)
    assert 0.5 < expected <= 1


def test_nothing_decided_says_nothing() -> None:
    share_KGS = np.zeros((3, 4, 8))
    np.testing.assert_allclose(alarm.check_evidence(observe(share_KGS)), 0, atol=1e-12)
    assert math.isnan(fires(observe(share_KGS)))


def drawn(num_checks: int, num_groups: int, *, fresh: bool, kind: str, draw: np.random.Generator) -> Observations:
    """Draw a healthy selector whose largest share is exactly tau in the population: the worst case, of eight slots."""
    tau = load.max_share_limit(8)
    if kind == "one slot a document":
        size = (num_checks if fresh else 1, num_groups)
        top = draw.random(size) < tau
    else:
        size = (num_checks if fresh else 1, num_groups)
        top = draw.beta(4 * tau, 4 * (1 - tau), size)
    top_KG = np.broadcast_to(np.asarray(top, dtype=float), (num_checks, num_groups))
    share_KGS = np.zeros((num_checks, num_groups, 8))
    share_KGS[..., 0], share_KGS[..., 1] = top_KG, 1 - top_KG
    return observe(share_KGS)


@pytest.mark.parametrize("kind", ["one slot a document", "parts"])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("num_checks", [17, 100])
def test_false_alarms_keep_the_guarantee_on_the_same_and_on_fresh_documents(
    num_checks: int, fresh: bool, kind: str
) -> None:
    draw = np.random.default_rng(1)
    runs = 200
    fired = sum(not math.isnan(fires(drawn(num_checks, 20, fresh=fresh, kind=kind, draw=draw))) for _ in range(runs))
    assert fired <= stats.binom.ppf(0.999, runs, LEVEL)


def test_the_guarantee_is_not_kept_by_never_firing() -> None:
    draw = np.random.default_rng(2)
    shares = draw.beta(40 * 0.7, 40 * 0.3, (100, 20))
    fired = 0
    for top_G in shares:
        share_KGS = np.zeros((17, 20, 8))
        share_KGS[..., 0], share_KGS[..., 1] = top_G, 1 - top_G
        fired += not math.isnan(fires(observe(share_KGS)))
    assert fired > 50


def test_healthy_runs_never_alarm() -> None:
    draw = np.random.default_rng(4)
    assert all(math.isnan(fires(observe(draw.dirichlet(np.full(8, 5.0), size=(24, 20))))) for _ in range(50))


def total(num_checks: int, num_groups: int, num_slots: int, from_check: int = 0, num_chosen: int = 1) -> Observations:
    """Make a selector that is even until a check, and from then on gives everything to the same slots."""
    share_KGS = np.full((num_checks, num_groups, num_slots), 1 / num_slots)
    share_KGS[from_check:] = 0
    share_KGS[from_check:, :, :num_chosen] = 1 / num_chosen
    return observe(share_KGS, num_chosen=num_chosen)


@pytest.mark.parametrize("num_slots", [2, 3, 4, 8, 64])
def test_a_total_collapse_is_told_within_a_tenth_of_the_run(num_slots: int) -> None:
    # 30 documents of each of two domains; 24 checks, so two of them are a tenth of the run
    assert fires(total(24, 60, num_slots, from_check=10)) in (11.0, 12.0)


def test_a_late_collapse_costs_no_more_than_an_early_one() -> None:
    delays = {start: fires(total(1000, 60, 8, from_check=start)) - start for start in (0, 500, 990)}
    assert set(delays.values()) == {1.0}


@pytest.mark.parametrize("num_slots", [2, 8])
@pytest.mark.parametrize("num_groups", [4, 8, 17, 21, 60])
@pytest.mark.parametrize("num_chosen", [1, 2])
def test_what_is_foretold_of_a_total_collapse_happens(num_slots: int, num_groups: int, num_chosen: int) -> None:
    if num_chosen == num_slots:
        return
    collapsed = total(24, num_groups, num_slots, num_chosen=num_chosen)
    foretold = alarm.checks_to_fire(collapsed, LEVEL)
    happened = fires(collapsed)
    assert foretold == happened or (math.isnan(foretold) and math.isnan(happened))


def test_no_alarm_is_possible_on_few_documents() -> None:
    # of two slots a document multiplies the wealth by 1.26 at most
    assert math.isnan(alarm.checks_to_fire(total(17, 10, 2), LEVEL))
    assert alarm.checks_to_fire(total(17, 40, 2), LEVEL) == 1
    # as many layers need more evidence for one guarantee
    assert alarm.checks_to_fire(total(17, 14, 8), LEVEL) == 1
    assert alarm.checks_to_fire(total(17, 14, 8), LEVEL, num_selectors=12) > 1
    assert math.isnan(alarm.checks_to_fire(total(0, 14, 8), LEVEL))


def test_the_slot_that_takes_longest_is_foretold_where_the_null_is_uneven() -> None:
    null_S, domain_G = np.array([0.875, 0.125]), np.arange(180) % 2
    skips, runs = np.tile([1.0, 0.0], (24, 180, 1)), np.tile([0.0, 1.0], (24, 180, 1))
    at_skips, at_runs = (fires(Observations(share_KGS, domain_G, null_S)) for share_KGS in (skips, runs))
    assert at_runs == 1 < at_skips
    assert alarm.checks_to_fire(Observations(skips, domain_G, null_S), LEVEL) == at_skips


def test_wealth_does_not_overflow() -> None:
    observed = total(20, 1000, 64)
    by_selector, run = alarm.log_wealth([observed])
    # 1,000 documents at ln(1 + .95 (1 - tau) / tau) each: far more than the largest number
    assert run[-1] > 1000 > math.log(np.finfo(np.float64).max)
    assert np.isfinite(by_selector).all()
