"""Test the permutation null against enumeration, and its rate of false positives without any effect."""

import itertools

import numpy as np
import pytest
from scipy import stats

from speciate.analysis import draws, information, nulls

SIMULATIONS = 600


def rate_bounds(level: float) -> tuple[float, float]:
    """Return the binomial interval that a true rate of `level` leaves once in a thousand."""
    low, high = stats.binom.ppf([0.0005, 0.9995], SIMULATIONS, level) / SIMULATIONS
    return float(low), float(high)


def test_p_value_against_every_permutation() -> None:
    counts_GS = np.array([[9.0, 1, 0], [6, 3, 1], [2, 6, 2], [1, 5, 4], [3, 3, 4], [4, 2, 4]])
    domain_G = np.array([0, 0, 0, 1, 1, 1])
    every = []
    for first in itertools.combinations(range(6), 3):
        label = np.isin(np.arange(6), first)
        every.append(information.domain_information(np.stack([counts_GS[label].sum(0), counts_GS[~label].sum(0)])))
    observed = information.domain_information(np.stack([counts_GS[:3].sum(0), counts_GS[3:].sum(0)]))
    exact = np.mean(np.array(every) >= observed - 1e-12)
    result = nulls.domain_null(counts_GS[None], draws.permuted_labels(domain_G, 9999, 0), 2)
    assert result.observed[0] == pytest.approx(observed)
    assert result.p_value[0] == pytest.approx(exact, abs=0.02)
    assert result.mean[0] == pytest.approx(np.mean(every), rel=0.02)
    assert result.z[0] == pytest.approx((observed - np.mean(every)) / np.std(every), rel=0.03)


def test_p_value_counts_ties_and_itself() -> None:
    drawn_BK = np.array([[2.0, 9.0, 0.0], [1, 1, 1], [2, 2, 2], [3, 3, 3]])
    result = nulls.compare_with_null(drawn_BK, 0.95)
    assert result.p_value.tolist() == [3 / 4, 1 / 4, 1]
    assert result.excess.tolist() == [0, 7, -2]


def test_a_null_that_cannot_vary_has_no_z() -> None:
    same_GS = np.ones((6, 3))
    result = nulls.domain_null(same_GS[None], draws.permuted_labels(np.array([0, 0, 0, 1, 1, 1]), 19, 0), 2)
    assert (result.observed[0], result.p_value[0]) == (0, 1)
    assert np.isnan(result.z[0])


def routed(seed: int, sizes_G: np.ndarray, spread: float = 5.0, num_slots: int = 6) -> np.ndarray:
    """Draw SIMULATIONS x groups x slots: each group of documents has its own tastes, and no domain has any."""
    draw = np.random.default_rng(seed)
    taste = draw.dirichlet(np.full(num_slots, spread), size=(SIMULATIONS, len(sizes_G)))
    return draw.multinomial(np.broadcast_to(sizes_G, taste.shape[:2]), taste).astype(float)


DOMAIN_G = np.repeat(np.arange(3), 12)


def test_without_domains_it_rejects_at_its_nominal_rate() -> None:
    result = nulls.domain_null(routed(1, np.full(36, 80)), draws.permuted_labels(DOMAIN_G, 999, 0), 3)
    for level in (0.01, 0.05, 0.2):
        low, high = rate_bounds(level)
        assert low <= (result.p_value <= level).mean() <= high
    # the bias is gone: the excess is zero within its standard error
    assert abs(result.excess.mean()) < 4 * result.excess.std() / np.sqrt(SIMULATIONS)
    outside = (result.observed < result.low) | (result.observed > result.high)
    low, high = rate_bounds(0.05)
    assert low <= outside.mean() <= high


def test_shuffled_labels_of_specialised_routers_are_no_specialisation() -> None:
    # the study's negative control: the choices are specialised, but the test is given other labels
    draw = np.random.default_rng(2)
    share_DS = np.array([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    counts_KGS = draw.multinomial(50, np.broadcast_to(share_DS[DOMAIN_G], (SIMULATIONS, 36, 3))).astype(float)
    shuffled = np.stack([counts_GS[draw.permutation(36)] for counts_GS in counts_KGS])
    labels = draws.permuted_labels(DOMAIN_G, 999, 0)
    low, high = rate_bounds(0.05)
    assert low <= (nulls.domain_null(shuffled, labels, 3).p_value <= 0.05).mean() <= high
    assert (nulls.domain_null(counts_KGS, labels, 3).p_value == 1 / 1000).all()


def test_permuting_what_is_not_exchangeable_finds_what_is_not_there() -> None:
    # each group is cut into eight documents, which are permuted one by one: the mistake that the group level avoids
    counts_KGS = routed(3, np.full(36, 80))
    draw = np.random.default_rng(4)
    cut_KGS = draw.multinomial(10, np.repeat(counts_KGS / 80, 8, axis=1)).astype(float)
    result = nulls.domain_null(cut_KGS, draws.permuted_labels(np.repeat(DOMAIN_G, 8), 199, 0), 3)
    assert (result.p_value <= 0.05).mean() > 0.5


# groups of the default study's probe set: files of code, templates of maths, articles of prose
LONG = np.array([128] * 64 + [1378, 1264, 1183, 1168, 1140, 1033, 1026] + [1721, 1710, 1515, 1213, 821, 700, 512])
LONG_DOMAIN_G = np.repeat([0, 1, 2], [64, 7, 7])


def test_unequal_groups_permuted_singly_hide_what_is_there_and_in_units_do_not() -> None:
    counts_KGS = routed(5, LONG)
    singly = nulls.domain_null(counts_KGS, draws.permuted_labels(LONG_DOMAIN_G, 499, 0), 3)
    assert singly.mean.mean() > 1.8 * singly.observed.mean()
    assert not (singly.p_value <= 0.05).any()
    units = draws.gather_units(LONG.astype(float), LONG_DOMAIN_G)
    result = nulls.domain_null(units.sum(counts_KGS, axis=1), draws.permuted_labels(units.domain_U, 999, 0), 3)
    np.testing.assert_allclose(result.observed, singly.observed)
    assert result.mean.mean() == pytest.approx(result.observed.mean(), rel=0.05)
    # where each document has strong tastes of its own, units are not strictly exchangeable
    assert rate_bounds(0.05)[0] <= (result.p_value <= 0.05).mean() <= 0.09


def test_unequal_groups_of_mild_tastes_reject_at_the_nominal_rate_in_units() -> None:
    units = draws.gather_units(LONG.astype(float), LONG_DOMAIN_G)
    counts_KUS = units.sum(routed(8, LONG, spread=200.0), axis=1)
    result = nulls.domain_null(counts_KUS, draws.permuted_labels(units.domain_U, 999, 0), 3)
    low, high = rate_bounds(0.05)
    assert low <= (result.p_value <= 0.05).mean() <= high


def test_a_planted_specialisation_is_found_and_its_bits_recovered() -> None:
    share_DS = np.array([[0.4, 0.2, 0.2, 0.2], [0.2, 0.4, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25]])
    exact = information.domain_information(share_DS)

    def found(tokens: int) -> nulls.Null:
        draw = np.random.default_rng(6)
        counts_KGS = draw.multinomial(tokens, np.broadcast_to(share_DS[DOMAIN_G], (SIMULATIONS, 36, 4)))
        return nulls.domain_null(counts_KGS.astype(float), draws.permuted_labels(DOMAIN_G, 1999, 0), 3)

    few, many = found(15), found(400)
    assert (few.p_value <= 0.05).mean() > 0.95
    # with few tokens the plug-in estimate is a quarter too high, but the excess is not
    assert few.observed.mean() > 1.2 * exact
    assert few.excess.mean() == pytest.approx(exact, rel=0.07)
    # shuffled groups of specialised routers still differ, so the null removes (D - 1) / (G - 1) of the information
    assert many.excess.mean() == pytest.approx(exact * (1 - 2 / 35), rel=0.01)


def test_observations_a_few_at_a_time_are_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts_KGS, labels = routed(7, np.full(36, 30))[:20], draws.permuted_labels(DOMAIN_G, 99, 0)
    complete = nulls.domain_null(counts_KGS, labels, 3)
    counts_GVS = np.moveaxis(counts_KGS, 0, 1)
    conditional = nulls.conditional_null(counts_GVS, labels, 3)
    monkeypatch.setattr(draws, "SUMS_AT_ONCE", 2000)
    assert nulls.domain_null(counts_KGS, labels, 3).p_value.tolist() == complete.p_value.tolist()
    assert nulls.conditional_null(counts_GVS, labels, 3).mean[0] == pytest.approx(conditional.mean[0], rel=1e-12)


def token_router(seed: int, by_domain: bool, num_tokens: int = 10) -> np.ndarray:
    """Draw groups x tokens x slots of a router: tastes by token, token laws by domain, optional domain tastes."""
    draw = np.random.default_rng(seed)
    law_DV = draw.dirichlet(np.full(num_tokens, 2.0), size=3)
    count_GV = draw.multinomial(60, law_DV[DOMAIN_G])
    taste_VS = draw.dirichlet(np.ones(4), size=num_tokens)
    own_DS = np.eye(4)[:3] if by_domain else np.full((3, 4), 0.25)
    share_GVS = 0.7 * taste_VS + 0.3 * own_DS[DOMAIN_G][:, None, :]
    return draw.multinomial(count_GV, share_GVS).astype(float)


def test_conditional_null_rejects_at_its_nominal_rate_though_tokens_tell_the_domain() -> None:
    labels = draws.permuted_labels(DOMAIN_G, 99, 0)
    result = [nulls.conditional_null(token_router(seed, by_domain=False), labels, 3) for seed in range(SIMULATIONS)]
    p_value = np.array([null.p_value[0] for null in result])
    low, high = rate_bounds(0.05)
    assert low <= (p_value <= 0.05).mean() <= high
    plain = [nulls.domain_null(token_router(seed, by_domain=False).sum(1)[None], labels, 3) for seed in range(50)]
    assert np.mean([null.p_value[0] <= 0.05 for null in plain]) > 0.5


def test_conditional_null_finds_what_the_domain_adds() -> None:
    labels = draws.permuted_labels(DOMAIN_G, 99, 0)
    result = [nulls.conditional_null(token_router(seed, by_domain=True), labels, 3) for seed in range(20)]
    assert all(null.p_value[0] == 1 / 100 for null in result)
    assert min(null.excess[0] for null in result) > 0.05
