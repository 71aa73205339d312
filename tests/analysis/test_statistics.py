"""Test intervals and corrections against scipy, published vectors, and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from speciate.analysis import draws, statistics

# Benjamini & Hochberg (1995), section 3.2: their procedure rejects four at 0.05, Bonferroni's and Holm's three
PUBLISHED = np.array(
    [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    + [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
)


@pytest.mark.parametrize("num_pairs", [2, 5, 12])
def test_paired_t_is_scipys(num_pairs: int) -> None:
    draw = np.random.default_rng(num_pairs)
    first, second = draw.normal(1, 1, num_pairs), draw.normal(0, 1, num_pairs)
    result, expected = statistics.paired_t(first - second, 0.9), stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.9)
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.p_value == pytest.approx(expected.pvalue)
    assert result.estimate == pytest.approx((first - second).mean())


def test_paired_t_with_too_little_to_say() -> None:
    nothing = statistics.paired_t(np.array([math.nan]), 0.95)
    assert nothing.num_pairs == 0
    assert math.isnan(nothing.estimate)
    one = statistics.paired_t(np.array([math.nan, 0.3]), 0.95)
    assert (one.num_pairs, one.estimate) == (1, 0.3)
    assert math.isnan(one.low) and math.isnan(one.p_value) and math.isnan(one.minimum_detectable)
    same = statistics.paired_t(np.array([7.0, 7.0, 7.0]), 0.95)
    assert (same.num_pairs, same.estimate) == (3, 7)
    assert math.isnan(same.low) and math.isnan(same.p_value)


def test_two_seeds_are_as_wide_as_they_are() -> None:
    result = statistics.paired_t(np.array([0.1, 0.3]), 0.95)
    assert result.high - result.estimate == pytest.approx(12.706 * 0.1, rel=1e-4)


@pytest.mark.parametrize("num_pairs", [5, 10, 20])
def test_minimum_detectable_difference_is_found_with_the_stated_power(num_pairs: int) -> None:
    error = 1 / math.sqrt(num_pairs)
    effect = statistics.minimum_detectable(error, num_pairs - 1, 0.95)
    critical = stats.t.ppf(0.975, num_pairs - 1)
    power = stats.nct.sf(critical, num_pairs - 1, effect / error)
    assert power == pytest.approx(statistics.POWER, abs=0.04)


def test_holm_and_bh_on_a_published_vector() -> None:
    shuffled = np.random.default_rng(0).permutation(len(PUBLISHED))
    holm, bh = statistics.holm(PUBLISHED[shuffled]), statistics.benjamini_hochberg(PUBLISHED[shuffled])
    assert sorted(PUBLISHED[shuffled][holm <= 0.05]) == PUBLISHED[:3].tolist()
    assert sorted(PUBLISHED[shuffled][bh <= 0.05]) == PUBLISHED[:4].tolist()


@pytest.mark.parametrize("seed", range(10))
def test_bh_is_its_definition_whatever_is_missing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    p = (1 + draw.integers(0, 200, 30)) / 201  # permutation p-values, which have ties
    p[draw.random(30) < 0.2] = math.nan
    known = sorted(value for value in p if not math.isnan(value))
    # q of p: the smallest m p_(j) / j over all p_(j) that are at least p
    q_of = {
        value: min([1.0, *(len(known) * p_j / (j + 1) for j, p_j in enumerate(known) if p_j >= value)])
        for value in known
    }
    expected = [q_of.get(value, math.nan) for value in p]
    np.testing.assert_allclose(statistics.benjamini_hochberg(p), expected, rtol=1e-15)


def test_holm_by_hand() -> None:
    assert statistics.holm(np.array([0.01, 0.04, 0.03, 0.02])) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert statistics.holm(np.array([0.5, 0.9])).tolist() == [1, 1]


@pytest.mark.parametrize("correct", [statistics.holm, statistics.benjamini_hochberg])
def test_corrections_leave_out_what_is_not_there(correct) -> None:
    result = correct(np.array([0.02, math.nan, 0.01]))
    assert math.isnan(result[1])
    assert result[[0, 2]] == pytest.approx(correct(np.array([0.02, 0.01])))
    assert len(correct(np.array([]))) == 0


def test_corrections_hold_their_rates() -> None:
    draw = np.random.default_rng(1)
    p = np.sort(draw.random((1000, 20)), axis=1)
    p[:, :8] = draw.random((1000, 8)) * 1e-4  # eight real effects and twelve nulls
    real = np.arange(20) < 8
    family, false_share = [], []
    for row in p:
        row[8:] = draw.random(12)
        family.append((statistics.holm(row)[~real] <= 0.05).any())
        result = statistics.benjamini_hochberg(row) <= 0.05
        false_share.append((result & ~real).sum() / max(result.sum(), 1))
    assert np.mean(family) <= stats.binom.ppf(0.999, 1000, 0.05) / 1000
    assert np.mean(false_share) == pytest.approx(0.05 * 12 / 20, abs=4 * np.std(false_share) / math.sqrt(1000))


@pytest.mark.parametrize(("successes", "trials"), [(0, 2), (2, 2), (3, 10), (10, 10), (17, 40)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_bounds_solve_the_score_equation(successes: int, trials: int, confidence: float) -> None:
    # Wilson (1927): the shares whose distance from the observed one is z times their own standard errors
    z = stats.norm.ppf((1 + confidence) / 2)
    low, high = statistics.wilson_interval(successes, trials, confidence)
    share = successes / trials
    for bound in (low, high):
        assert (share - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / trials, abs=1e-12)
    assert 0 <= low <= share <= high <= 1
    # at 0 and n successes the bound is exactly 0 and 1
    assert (low == 0) == (successes == 0) and (high == 1) == (successes == trials)


def test_wilson_without_trials_is_nan() -> None:
    assert all(map(math.isnan, statistics.wilson_interval(0, 0, 0.95)))


@pytest.mark.parametrize("seed", range(20))
def test_tost_agrees_with_two_scipy_tests_and_with_its_interval(seed: int) -> None:
    difference = np.random.default_rng(seed).normal(0.02, 0.05, 6)
    margin = 0.06
    lower = stats.ttest_1samp(difference, -margin, alternative="greater").pvalue
    upper = stats.ttest_1samp(difference, margin, alternative="less").pvalue
    p_value = statistics.tost(difference, margin, 0.95)
    assert p_value == pytest.approx(max(lower, upper))
    verdict, _ = statistics.decide(difference, "equivalent", margin, 0.95)
    assert (verdict == "supported") == (p_value < 0.05)


def test_tost_needs_pairs_that_vary() -> None:
    assert math.isnan(statistics.tost(np.array([0.1, 0.1]), 0.2, 0.95))
    assert math.isnan(statistics.tost(np.array([0.3]), 0.2, 0.95))


def around(low: float, high: float, confidence: float = 0.95) -> np.ndarray:
    """Return two differences whose t interval of `confidence` is (low, high)."""
    half = (high - low) / 2 / stats.t.ppf((1 + confidence) / 2, 1)
    return (low + high) / 2 + np.array([-half, half])


@pytest.mark.parametrize(
    ("direction", "low", "high", "verdict"),
    [
        ("greater", 0.11, 0.5, "supported"),
        ("greater", 0.09, 0.5, "undecided"),
        ("greater", -0.5, 0.09, "refuted"),
        ("greater", -0.5, 0.11, "undecided"),
        ("less", -0.5, -0.11, "supported"),
        ("less", -0.5, -0.09, "undecided"),
        ("less", -0.09, 0.5, "refuted"),
        ("equivalent", -0.09, 0.09, "supported"),
        ("equivalent", -0.11, 0.09, "undecided"),
        ("equivalent", 0.02, 0.05, "supported"),
        ("equivalent", 0.11, 0.5, "refuted"),
        ("equivalent", -0.5, -0.11, "refuted"),
        ("equivalent", -0.5, 0.5, "undecided"),
    ],
)
def test_verdicts_by_interval(direction, low: float, high: float, verdict: str) -> None:
    difference = around(low, high, 0.9 if direction == "equivalent" else 0.95)
    result, interval = statistics.decide(difference, direction, 0.1, 0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert result == verdict


def test_nothing_is_decided_by_one_seed_or_by_seeds_that_do_not_vary() -> None:
    for direction in ("greater", "less", "equivalent"):
        assert statistics.decide(np.array([5.0, math.nan]), direction, 0.1, 0.95)[0] == "undecided"
        assert statistics.decide(np.array([7.0, 7.0]), direction, 0.1, 0.95)[0] == "undecided"


def documents(seed: int, num_groups: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tokens of each group and the nats of two runs on them: hard texts are hard for both."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(50, 500, num_groups).astype(float)
    hardness = draw.normal(4, 0.6, num_groups)
    first, second = (tokens * (hardness + shift + draw.normal(0, 0.05, num_groups)) for shift in (0.1, 0.0))
    return tokens, first, second


def test_ratio_bootstrap_has_the_delta_methods_error() -> None:
    tokens, nats, _ = documents(0, 200)
    times = draws.resample_counts(np.zeros(200, dtype=int), 4000, 0)
    drawn = statistics.ratio_draws(nats, tokens, times)
    ratio = nats.sum() / tokens.sum()
    delta = np.sqrt(((nats - ratio * tokens) ** 2).sum()) / tokens.sum()
    assert drawn.std() == pytest.approx(delta, rel=0.05)
    low, high = statistics.percentile_interval(drawn, 0.95)
    assert (low, high) == pytest.approx((ratio - 1.96 * delta, ratio + 1.96 * delta), rel=0.01)


def test_pairing_by_document_covers_and_is_narrower() -> None:
    covered = 0
    for seed in range(200):
        tokens, first, second = documents(seed)
        times = draws.resample_counts(np.zeros(60, dtype=int), 299, seed)
        one, other = (statistics.ratio_draws(nats, tokens, times) for nats in (first, second))
        low, high = statistics.percentile_interval(one - other, 0.95)
        unpaired = statistics.percentile_interval(one, 0.95)
        assert high - low < 0.5 * (unpaired[1] - unpaired[0])
        covered += low <= 0.1 <= high
    assert stats.binom.cdf(covered, 200, 0.95) > 0.001


def test_a_bootstrap_of_few_documents_has_students_width() -> None:
    # draws with the bootstrap's normal law of seven documents: mean 5, standard error s sqrt(6 / 7) / sqrt(7)
    document_G = np.array([4.1, 4.7, 4.9, 5.0, 5.2, 5.4, 5.7])
    error = document_G.std(ddof=1) * np.sqrt(6 / 7) / np.sqrt(7)
    drawn = document_G.mean() + error * stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    student = stats.ttest_1samp(document_G, 5.0).confidence_interval(0.95)
    assert statistics.document_interval(drawn, 0.95, 7) == pytest.approx((student.low, student.high), rel=1e-3)
    assert np.isnan(statistics.document_interval(drawn, 0.95, 1)).all()


def test_a_bootstrap_of_seven_documents_holds_the_truth_as_often_as_it_says() -> None:
    draw, inside, narrow = np.random.default_rng(3), 0, 0
    for seed in range(400):
        nats_G = draw.normal(5, 0.6, 7)
        drawn = statistics.ratio_draws(nats_G, np.ones(7), draws.resample_counts(np.zeros(7, dtype=int), 499, seed))
        low, high = statistics.document_interval(drawn, 0.95, statistics.effective_number(np.ones(7)))
        inside += low <= 5 <= high
        low, high = statistics.percentile_interval(drawn, 0.95)
        narrow += low <= 5 <= high
    assert stats.binom.cdf(inside, 400, 0.95) > 0.001
    assert stats.binom.cdf(narrow, 400, 0.95) < 0.001


def test_effective_number_of_groups() -> None:
    assert statistics.effective_number(np.full(9, 3.0)) == pytest.approx(9)
    assert statistics.effective_number(np.array([8.0, 1.0, 1.0])) == pytest.approx(100 / 66)


def test_centred_takes_the_common_shift_off() -> None:
    drawn = 7 + np.arange(-50, 51) / 100
    assert statistics.centred_interval(1.0, drawn, 0.9) == pytest.approx((1 - 0.45, 1 + 0.45))
