"""Intervals, tests and corrections at the level of the study: seeds are the unit, arms are paired by seed.

Arms of a seed share the data order and the initial weights, so their difference has less noise than either of them. Few
seeds make wide intervals (two: 1 degree of freedom, t = 12.7), and that is their honest width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from speciate.selection.tally import Array

Verdict = Literal["supported", "refuted", "undecided"]
Direction = Literal["greater", "less", "equivalent"]
NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A mean difference with its interval and two-sided p-value; NaN where there are too few pairs."""

    estimate: float
    low: float
    high: float
    p_value: float
    num_pairs: int
    minimum_detectable: float
    """The smallest true difference that as many pairs, as noisy as these, detect with probability `POWER`."""


POWER = 0.8


def paired_t(difference_P: Array, confidence: float) -> Interval:
    """Return Student's paired t interval: mean +- t_{1-a/2, n-1} s / sqrt(n), a = 1 - confidence.

    Pairs with a NaN are left out. One pair has an estimate but no interval. Nor have pairs with exactly the same
    difference (s = 0), which counts can have: the noise is estimated from the pairs, and where they show none it is
    unknown.
    """
    kept_P = difference_P[~np.isnan(difference_P)]
    n = len(kept_P)
    if n == 0:
        return Interval(NAN, NAN, NAN, NAN, 0, NAN)
    mean = float(kept_P.mean())
    error = float(kept_P.std(ddof=1)) / math.sqrt(n) if n > 1 and np.ptp(kept_P) > 0 else 0.0
    if error == 0:
        return Interval(mean, NAN, NAN, NAN, n, NAN)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    p_value = float(2 * stdtr(n - 1, -abs(mean) / error))
    return Interval(mean, mean - half, mean + half, p_value, n, minimum_detectable(error, n - 1, confidence))


def minimum_detectable(standard_error: float, degrees: int, confidence: float, power: float = POWER) -> float:
    """Return MDE = (t_{1-a/2, df} + t_{power, df}) SE (Bloom 1995): what the design could have found."""
    return float((stdtrit(degrees, (1 + confidence) / 2) + stdtrit(degrees, power)) * standard_error)


def holm(p_P: Array) -> Array:
    """Return Holm's step-down p-values (1979), which hold the chance of any false rejection; a NaN stays NaN.

    adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)), with p in ascending order.
    """
    adjusted_P = np.full(len(p_P), np.nan)
    (known,) = np.nonzero(~np.isnan(p_P))
    order = known[np.argsort(p_P[known], kind="stable")]
    factor = len(order) - np.arange(len(order))
    adjusted_P[order] = np.minimum(np.maximum.accumulate(factor * p_P[order]), 1)
    return adjusted_P


def benjamini_hochberg(p_P: Array) -> Array:
    """Return q-values of Benjamini & Hochberg (1995): the expected share of false discoveries; a NaN stays NaN.

    q_(i) = min_{j >= i} min(1, m p_(j) / j) over the m values that are not NaN. They hold for independent and for
    positively dependent tests (Benjamini & Yekutieli 2001); selectors scored with one set of permutations are of the
    second kind.
    """
    from scipy import stats  # takes a second of CPU, which every `measure` would pay

    adjusted_P = np.full(len(p_P), np.nan)
    known_P = ~np.isnan(p_P)
    adjusted_P[known_P] = stats.false_discovery_control(p_P[known_P])
    return adjusted_P


def wilson_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's score interval (1927) of a share; (NaN, NaN) without trials."""
    if trials == 0:
        return NAN, NAN
    from scipy import stats

    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def tost(difference_P: Array, margin: float, confidence: float) -> float:
    """Return the p-value of two one-sided t tests (Schuirmann 1987) that the mean difference lies within +-margin.

    It is the larger of p(mean <= -margin) and p(mean >= margin), and at most a = 1 - confidence exactly when the t
    interval of confidence 1 - 2a lies within the margin. NaN where `paired_t` has no interval.
    """
    kept_P = difference_P[~np.isnan(difference_P)]
    n = len(kept_P)
    if n < 2 or np.ptp(kept_P) == 0:
        return NAN
    mean, error = float(kept_P.mean()), float(kept_P.std(ddof=1)) / math.sqrt(n)
    return float(max(stdtr(n - 1, -(mean + margin) / error), stdtr(n - 1, (mean - margin) / error)))


def decide(difference_P: Array, direction: Direction, margin: float, confidence: float) -> tuple[Verdict, Interval]:
    """Return the verdict of paired differences on a hypothesis, and the interval that decided it.

    greater:    supported where low > margin, refuted where high < margin.
    less:       supported where high < -margin, refuted where low > -margin.
    equivalent: takes the interval of confidence 1 - 2a (TOST); supported where it lies within +-margin, refuted where
                it lies wholly outside.
    Anything else, too few pairs included, is undecided.
    """
    interval = paired_t(difference_P, interval_confidence(direction, confidence))
    return judge(interval.low, interval.high, direction, margin), interval


def interval_confidence(direction: Direction, confidence: float) -> float:
    """Return the confidence of the interval that decides: 1 - 2a for an equivalence (TOST), else 1 - a."""
    return 2 * confidence - 1 if direction == "equivalent" else confidence


def judge(low: float, high: float, direction: Direction, margin: float) -> Verdict:
    """Return what an interval of a difference says of a prediction; undecided where it is NaN."""
    supported, refuted = {
        "greater": (low > margin, high < margin),
        "less": (high < -margin, low > -margin),
        "equivalent": (-margin < low and high < margin, low > margin or high < -margin),
    }[direction]
    return "supported" if supported else "refuted" if refuted else "undecided"


def proportion_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper & Pearson 1934); (NaN, NaN) without trials."""
    if trials == 0:
        return NAN, NAN
    from scipy import stats

    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def mcnemar_interval(only_arm: int, only_reference: int, pairs: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a difference between paired shares that decides as McNemar's exact test (1947) does.

    Given the number of pairs that differ, those in which only the arm counts are binomial, with a probability of 1/2
    where the shares are equal. Its Clopper-Pearson interval [t, u] gives the interval of the difference,
    (2 t - 1) m / n to (2 u - 1) m / n with m of n pairs differing. (NaN, NaN) where no pair differs.
    """
    differing = only_arm + only_reference
    low, high = proportion_interval(only_arm, differing, confidence)
    return (2 * low - 1) * differing / max(pairs, 1), (2 * high - 1) * differing / max(pairs, 1)


def slopes(value_PA: Array, number_A: Array) -> Array:
    """Return the least-squares slope over `number_A` of each row; NaN for a row with a NaN."""
    centred_A = number_A - number_A.mean()
    result: Array = value_PA @ centred_A / (centred_A**2).sum()
    return result


def ratio_draws(numerator_G: Array, denominator_G: Array, times_BG: Array) -> Array:
    """Return a ratio of sums over resampled documents, (B,): sum_g c_bg num_g / sum_g c_bg den_g.

    c is `draws.resample_counts`. Two runs scored on the same documents with the same draws are paired: the quantiles of
    the difference of their draws are the paired document (cluster) bootstrap interval (Efron & Tibshirani 1993, ch. 8).
    """
    result: Array = (times_BG @ numerator_G) / (times_BG @ denominator_G)
    return result


def percentile_interval(drawn_B: Array, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of bootstrap draws; (NaN, NaN) where a draw is NaN."""
    low, high = np.quantile(drawn_B, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def expanded_tail(confidence: float, num_groups: float) -> float:
    """Return the tail of a bootstrap's draws beyond which Student's t leaves (1 - confidence) / 2 on either side.

    NaN where there are fewer than two groups.
    """
    if not num_groups > 1:
        return NAN
    quantile = float(stdtrit(num_groups - 1, (1 + confidence) / 2)) * math.sqrt(num_groups / (num_groups - 1))
    return float(ndtr(-quantile))


def document_interval(drawn_B: Array, confidence: float, num_groups: float) -> tuple[float, float]:
    """Return the expanded percentile interval of a document bootstrap (Hesterberg 2015), wide enough for few documents.

    The percentile interval is that of a normal law, with a variance that is divided by n instead of n - 1. This one
    takes the percentiles Phi(+-sqrt(n / (n - 1)) t_{1-a/2, n-1}), so that n documents have Student's width.
    (NaN, NaN) where a draw is NaN or there are fewer than two documents.

    Args:
        drawn_B: bootstrap draws.
        confidence: 1 - a.
        num_groups: n, the effective number of groups of documents, `effective_number` of their sizes.
    """
    tail = expanded_tail(confidence, num_groups)
    if math.isnan(tail):
        return NAN, NAN
    low, high = np.quantile(drawn_B, [tail, 1 - tail])
    return float(low), float(high)


def effective_number(size_G: Array) -> float:
    """Return (sum n)^2 / sum n^2, Kish's effective number of groups (1965): theirs where they are equally large."""
    return float(size_G.sum() ** 2 / (size_G**2).sum())


def centred_interval(estimate: float, drawn_B: Array, confidence: float) -> tuple[float, float]:
    """Return the interval around `estimate` with the spread of `drawn_B` about its own mean.

    It serves statistics such as I(E;D) that resampling biases: draws that repeat documents have more of it. The null
    has removed the estimate's own bias; the draws' common shift is that bias once more, so it is subtracted.
    """
    low, high = percentile_interval(drawn_B - drawn_B.mean(), confidence)
    return estimate + low, estimate + high
