"""Test the nulls against enumeration, and their rate of false positives without any effect."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from speciate.analysis import draws, information
from speciate.analysis.specialisation import nulls, welch

SIMULATIONS = 600


def rate_bounds(level: float) -> tuple[float, float]:
    """Return the binomial interval that a true rate of `level` leaves once in a thousand."""
    low, high = stats.binom.ppf([0.0005, 0.9995], SIMULATIONS, level) / SIMULATIONS
    return float(low), float(high)


def slow_statistic(counts_US: np.ndarray, true_U: list[int], label_U: list[int], sign_U: list[int]) -> float:
    """Return T from its definition, in loops: Welch's weights, slots by 1 / (p + 5 / n), residuals of the true domains.

    The residuals are about the centre that the weights of the residuals about the mean shares give.
    """
    domains, slots, units = range(max(true_U) + 1), range(counts_US.shape[1]), range(len(true_U))
    size_U = [float(sum(counts)) for counts in counts_US]
    size_D = [sum(size_U[u] for u in units if true_U[u] == d) for d in domains]
    share_DS = [[sum(counts_US[u][s] for u in units if true_U[u] == d) / size_D[d] for s in slots] for d in domains]
    even_S = [sum(share_DS[d][s] for d in domains) / len(domains) for s in slots]
    scale_S = [1 / math.sqrt(even_S[s] + 5 / min(size_D)) for s in slots]

    def residuals(centre_S: list[float]) -> list[list[float]]:
        per_unit = [size_D[d] / true_U.count(d) for d in domains]
        return [
            [(counts_US[u][s] - size_U[u] * centre_S[s]) * scale_S[s] / per_unit[true_U[u]] for s in slots]
            for u in units
        ]

    def means_and_weights(unit_US: list[list[float]], label_U: list[int], sign_U: list[int]) -> tuple[list, list]:
        means, weights = [], []
        for d in domains:
            members = [[sign_U[u] * value for value in unit_US[u]] for u in units if label_U[u] == d]
            mean_S = [sum(unit[s] for unit in members) / len(members) for s in slots]
            squares = sum((unit[s] - mean_S[s]) ** 2 for unit in members for s in slots)
            means.append(mean_S)
            weights.append(len(members) * (len(members) - 1) / squares)
        return means, weights

    _, weights = means_and_weights(residuals(even_S), true_U, [1] * len(true_U))
    centre_S = [sum(weights[d] * share_DS[d][s] for d in domains) / sum(weights) for s in slots]
    means, weights = means_and_weights(residuals(centre_S), label_U, sign_U)
    common_S = [sum(weights[d] * means[d][s] for d in domains) / sum(weights) for s in slots]
    return sum(weights[d] * (means[d][s] - common_S[s]) ** 2 for d in domains for s in slots)


COUNTS_US = np.array([[9.0, 1, 0], [16, 3, 1], [2, 6, 2], [1, 5, 4], [3, 3, 14], [4, 2, 4]])


def every_draw(true_U: list[int]) -> draws.NullDraws:
    """Return all arrangements of the labels and all patterns of signs, what was observed first."""
    arrangements = sorted(set(itertools.permutations(true_U)), key=lambda row: row != tuple(true_U))
    signs = list(itertools.product([1.0, -1.0], repeat=len(true_U)))
    return draws.NullDraws(np.array(arrangements), np.array(signs), 0)


@pytest.mark.parametrize("true_U", [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]])
def test_p_value_against_every_permutation_and_every_pattern_of_signs(true_U: list[int]) -> None:
    drawn = every_draw(true_U)
    by_label = [slow_statistic(COUNTS_US, true_U, list(row), [1] * 6) for row in drawn.label_BU]
    by_sign = [slow_statistic(COUNTS_US, true_U, true_U, list(row)) for row in drawn.sign_BU]
    assert by_label[0] == by_sign[0]
    residuals = welch.find_residuals(COUNTS_US[:, None], np.array(true_U), correct_leverage=False)
    assert welch.observed_statistic(residuals) == pytest.approx(by_label[0])
    members = drawn.sign_BU[:, None] * residuals.member_DU
    np.testing.assert_allclose(welch.drawn_statistics(residuals, members), by_sign)
    exact = max(np.mean([value >= values[0] - 1e-9 for value in values]) for values in (by_label, by_sign))
    assert nulls.domain_null(COUNTS_US[None], drawn).p_value[0] == pytest.approx(exact)
    sampled = nulls.domain_null(COUNTS_US[None], draws.null_draws(np.array(true_U), 9999, 0))
    assert sampled.p_value[0] == pytest.approx(exact, abs=0.02)


def test_permutations_are_exact_where_units_are_exchangeable() -> None:
    # equal units under every arrangement of their labels: at most a share a of the arrangements has p <= a
    counts_US = np.random.default_rng(0).multinomial(20, [0.5, 0.3, 0.2], size=7).astype(float)
    label_BU = every_draw([0, 0, 0, 0, 1, 1, 1]).label_BU
    p_values = []
    for true_U in label_BU:
        others = np.stack([true_U, *label_BU])
        residuals = welch.find_residuals(counts_US[:, None], true_U, correct_leverage=False)
        members = (others[:, None] == np.arange(2)[:, None]).astype(float)
        values = welch.drawn_statistics(residuals, members)
        p_values.append(np.mean(values[1:] >= values[0] * (1 - 1e-9)))
    assert len(p_values) == 35
    for level in (1 / 35, 0.1, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= level) <= level + 1e-12
    assert min(p_values) <= 2 / 35


def test_a_null_that_cannot_vary_has_no_z() -> None:
    drawn = draws.null_draws(np.array([0, 0, 0, 1, 1, 1]), 19, 0)
    result = nulls.domain_null(np.ones((1, 6, 3)), drawn)
    assert (result.observed[0], result.p_value[0]) == (0, 1)
    assert np.isnan(result.z[0])


def test_an_oracle_whose_domains_do_not_vary_is_found() -> None:
    counts_US = np.repeat(np.eye(3) * 50, 8, axis=0)
    result = nulls.domain_null(counts_US[None], draws.null_draws(np.repeat([0, 1, 2], 8), 999, 0))
    assert result.observed[0] == pytest.approx(np.log2(3))
    assert (result.p_value[0], result.mean[0]) == (1 / 1000, 0)


def test_domains_without_decisions_are_left_out_and_a_single_unit_says_nothing() -> None:
    counts_KUS = routed(9, np.full(36, 80))[:1]
    drawn = draws.null_draws(DOMAIN_G, 199, 0)
    none, one = counts_KUS.copy(), counts_KUS.copy()
    none[:, 24:] = 0
    two = nulls.domain_null(none, drawn)
    alone = nulls.domain_null(none[:, :24], draws.null_draws(DOMAIN_G[:24], 199, 0))
    assert (two.p_value.tolist(), two.mean.tolist()) == (alone.p_value.tolist(), alone.mean.tolist())
    one[:, 12:] = 0
    assert nulls.domain_null(one, drawn).p_value.tolist() == [1]
    single = nulls.domain_null(counts_KUS[:, 11:], draws.null_draws(DOMAIN_G[11:], 199, 0))
    assert single.observed[0] > 0
    assert np.isnan([single.p_value[0], single.mean[0], single.excess[0]]).all()


def routed(seed: int, sizes_G: np.ndarray, spread: float = 5.0, num_slots: int = 6) -> np.ndarray:
    """Draw SIMULATIONS x groups x slots: each group of documents has its own tastes, and no domain has any."""
    draw = np.random.default_rng(seed)
    taste = draw.dirichlet(np.full(num_slots, spread), size=(SIMULATIONS, len(sizes_G)))
    return draw.multinomial(np.broadcast_to(sizes_G, taste.shape[:2]), taste).astype(float)


DOMAIN_G = np.repeat(np.arange(3), 12)


def test_without_domains_it_rejects_at_its_nominal_rate() -> None:
    result = nulls.domain_null(routed(1, np.full(36, 80)), draws.null_draws(DOMAIN_G, 199, 0))
    for level in (0.05, 0.2):
        assert (result.p_value <= level).mean() <= rate_bounds(level)[1]
    assert (result.p_value <= 0.05).mean() >= 0.025  # the larger of two p-values is a little too large
    # the bias is gone: the excess is zero within its standard error
    assert abs(result.excess.mean()) < 4 * result.excess.std() / np.sqrt(SIMULATIONS)
    outside = (result.observed < result.low) | (result.observed > result.high)
    assert rate_bounds(0.05)[0] <= outside.mean() <= 0.09


def test_unequal_decisions_are_no_specialisation() -> None:
    """Reject at the nominal rate where domains decide 200, 50 and 10 times; pooled permutation rejects nine in ten."""
    decisions_G = np.repeat([200, 50, 10], 12)
    counts_KGS = routed(11, decisions_G, spread=500.0)
    result = nulls.domain_null(counts_KGS, draws.null_draws(DOMAIN_G, 199, 0))
    assert (result.p_value <= 0.05).mean() <= rate_bounds(0.05)[1]
    assert abs(result.excess.mean()) < 4 * result.excess.std() / np.sqrt(SIMULATIONS)
    pooled = information.domain_information(
        draws.sums_by_label(draws.permuted_labels(DOMAIN_G, 99, 0), 3, np.moveaxis(counts_KGS[:100], 0, 1)).swapaxes(
            1, 2
        )
    )
    assert ((pooled[1:] >= pooled[0]).mean(axis=0) <= 0.05).mean() > 0.5


def test_unequal_spread_is_no_specialisation() -> None:
    draw = np.random.default_rng(12)
    taste = [draw.dirichlet(np.full(8, spread / 8), size=(SIMULATIONS, 12)) for spread in (400, 40, 10)]
    counts_KGS = draw.multinomial(500, np.concatenate(taste, axis=1)).astype(float)
    result = nulls.domain_null(counts_KGS, draws.null_draws(DOMAIN_G, 199, 0))
    assert (result.p_value <= 0.05).mean() <= rate_bounds(0.05)[1]


def test_shuffled_labels_of_specialised_routers_are_no_specialisation() -> None:
    # the study's negative control: the choices are specialised, but the test is given other labels
    draw = np.random.default_rng(2)
    share_DS = np.array([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    counts_KGS = draw.multinomial(50, np.broadcast_to(share_DS[DOMAIN_G], (SIMULATIONS, 36, 3))).astype(float)
    shuffled = np.stack([counts_GS[draw.permutation(36)] for counts_GS in counts_KGS])
    drawn = draws.null_draws(DOMAIN_G, 199, 0)
    assert (nulls.domain_null(shuffled, drawn).p_value <= 0.05).mean() <= rate_bounds(0.05)[1]
    assert (nulls.domain_null(counts_KGS, drawn).p_value == 1 / 200).all()


def test_testing_what_is_not_independent_finds_what_is_not_there() -> None:
    # each group is cut into eight documents, which count as units: the mistake that the group level avoids
    counts_KGS = routed(3, np.full(36, 80))[:200]
    draw = np.random.default_rng(4)
    cut_KGS = draw.multinomial(10, np.repeat(counts_KGS / 80, 8, axis=1)).astype(float)
    result = nulls.domain_null(cut_KGS, draws.null_draws(np.repeat(DOMAIN_G, 8), 99, 0))
    assert (result.p_value <= 0.05).mean() > 0.5


# groups of the default study's probe set: files of code, templates of maths, articles of prose
LONG = np.array([128] * 64 + [1378, 1264, 1183, 1168, 1140, 1033, 1026] + [1721, 1710, 1515, 1213, 821, 700, 512])
LONG_DOMAIN_G = np.repeat([0, 1, 2], [64, 7, 7])


@pytest.mark.parametrize("spread", [5.0, 200.0])
def test_unequal_groups_reject_at_the_nominal_rate_in_units(spread: float) -> None:
    units = draws.gather_units(LONG.astype(float), LONG_DOMAIN_G)
    counts_KUS = units.sum(routed(8, LONG, spread=spread), axis=1)
    result = nulls.domain_null(counts_KUS, draws.null_draws(units.domain_U, 199, 0))
    assert (result.p_value <= 0.05).mean() <= rate_bounds(0.05)[1]
    assert abs(result.excess.mean()) < 4 * result.excess.std() / np.sqrt(SIMULATIONS)


def test_a_planted_specialisation_is_found_and_its_bits_recovered() -> None:
    share_DS = np.array([[0.4, 0.2, 0.2, 0.2], [0.2, 0.4, 0.2, 0.2], [0.25, 0.25, 0.25, 0.25]])
    exact = information.domain_information(share_DS)

    def found(tokens: int) -> nulls.Null:
        draw = np.random.default_rng(6)
        counts_KGS = draw.multinomial(tokens, np.broadcast_to(share_DS[DOMAIN_G], (SIMULATIONS, 36, 4)))
        return nulls.domain_null(counts_KGS.astype(float), draws.null_draws(DOMAIN_G, 199, 0))

    few, many = found(15), found(400)
    assert (few.p_value <= 0.05).mean() > 0.9
    # with few tokens the plug-in estimate is a quarter too high, but the excess is not, with few tokens or many
    assert few.observed.mean() > 1.2 * exact
    for result in (few, many):
        assert result.excess.mean() == pytest.approx(exact, abs=4 * result.excess.std() / np.sqrt(SIMULATIONS))


def test_observations_a_few_draws_at_a_time_are_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts_KGS, drawn = routed(7, np.full(36, 30))[:20], draws.null_draws(DOMAIN_G, 99, 0)
    counts_GVS = np.moveaxis(counts_KGS, 0, 1)
    complete, conditional = nulls.domain_null(counts_KGS, drawn), nulls.conditional_null(counts_GVS, drawn)
    monkeypatch.setattr(draws, "SUMS_AT_ONCE", 2000)
    assert nulls.domain_null(counts_KGS, drawn).p_value.tolist() == complete.p_value.tolist()
    again = nulls.conditional_null(counts_GVS, drawn)
    assert (again.p_value[0], again.mean[0]) == (conditional.p_value[0], pytest.approx(conditional.mean[0], rel=1e-12))


def token_router(
    seed: int, by_domain: bool, num_tokens: int = 10, decisions: tuple[int, int, int] = (60, 60, 60)
) -> np.ndarray:
    """Draw groups x tokens x slots of a router: tastes by token, token laws by domain, optional domain tastes."""
    draw = np.random.default_rng(seed)
    law_DV = draw.dirichlet(np.full(num_tokens, 2.0), size=3)
    count_GV = draw.multinomial(np.array(decisions)[DOMAIN_G], law_DV[DOMAIN_G])
    taste_VS = draw.dirichlet(np.ones(4), size=num_tokens)
    own_DS = np.eye(4)[:3] if by_domain else np.full((3, 4), 0.25)
    share_GVS = 0.7 * taste_VS + 0.3 * own_DS[DOMAIN_G][:, None, :]
    counts_GVS = draw.multinomial(count_GV, share_GVS).astype(float)
    counts_DV = draws.sums_by_label(DOMAIN_G[None], 3, counts_GVS)[0].sum(axis=-1)
    return counts_GVS[:, (counts_DV >= 5).all(axis=0)]


@pytest.mark.parametrize("decisions", [(60, 60, 60), (200, 60, 30)])
def test_conditional_null_rejects_at_its_nominal_rate_though_tokens_tell_the_domain(
    decisions: tuple[int, int, int],
) -> None:
    drawn = draws.null_draws(DOMAIN_G, 99, 0)
    counts = [token_router(seed, by_domain=False, decisions=decisions) for seed in range(SIMULATIONS)]
    result = [nulls.conditional_null(counts_GVS, drawn) for counts_GVS in counts]
    p_value, excess = (np.array([getattr(null, name)[0] for null in result]) for name in ("p_value", "excess"))
    assert (p_value <= 0.05).mean() <= rate_bounds(0.05)[1]
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(SIMULATIONS) + 0.05 * np.mean([n.mean[0] for n in result])
    plain = [nulls.domain_null(counts_GVS.sum(1)[None], drawn) for counts_GVS in counts[:50]]
    assert np.mean([null.p_value[0] <= 0.05 for null in plain]) > 0.5


def test_conditional_null_finds_what_the_domain_adds() -> None:
    drawn = draws.null_draws(DOMAIN_G, 99, 0)
    result = [nulls.conditional_null(token_router(seed, by_domain=True), drawn) for seed in range(20)]
    assert all(null.p_value[0] == 1 / 100 for null in result)
    assert min(null.excess[0] for null in result) > 0.05
