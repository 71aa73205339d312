"""Intervals, tests and corrections at the level of the study: seeds are the unit, arms are paired by seed.

Arms of a seed share the data order and the initial weights, so that their difference has less noise than either. Few
seeds make wide intervals (two: 1 degree of freedom, t = 12.7), and that is their honest width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from speciate.selection.tally import Array

Verdict = Literal["supported", "refuted", "undecided"]
NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """A mean difference with its interval and two-sided p-value; NaN where too few pairs say anything."""

    estimate: float
    low: float
    high: float
    p_value: float
    num_pairs: int
    minimum_detectable: float
    """The smallest true difference that as many pairs, as noisy as these, find with a chance of `POWER`."""


POWER = 0.8


def paired_t(difference_P: Array, confidence: float) -> Interval:
    """Student's paired t interval: mean +- t_{1-a/2, n-1} s / sqrt(n), a = 1 - confidence.

    Pairs with a NaN are left out. One pair has an estimate and no interval; nor have pairs that differ by exactly the
    same (s = 0), which a count can: the noise is estimated from the pairs, and where they show none it is unknown.
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
    """MDE = (t_{1-a/2, df} + t_{power, df}) SE (Bloom 1995): what the design could have found, whatever it found."""
    return float((stdtrit(degrees, (1 + confidence) / 2) + stdtrit(degrees, power)) * standard_error)


def holm(p_P: Array) -> Array:
    """Holm's step-down p-values (1979): the chance of one false rejection among all is held. NaN stay NaN.

    adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)), p sorted upwards.
    """
    adjusted_P = np.full(len(p_P), np.nan)
    (known,) = np.nonzero(~np.isnan(p_P))
    order = known[np.argsort(p_P[known], kind="stable")]
    factor = len(order) - np.arange(len(order))
    adjusted_P[order] = np.minimum(np.maximum.accumulate(factor * p_P[order]), 1)
    return adjusted_P


def benjamini_hochberg(p_P: Array) -> Array:
    """q-values of Benjamini & Hochberg (1995): the expected share of false finds among the finds. NaN stay NaN.

    q_(i) = min_{j >= i} min(1, m p_(j) / j). Holds for independent and for positively dependent tests (Benjamini &
    Yekutieli 2001); selectors scored with one set of permutations are of the second sort.
    """
    adjusted_P = np.full(len(p_P), np.nan)
    (known,) = np.nonzero(~np.isnan(p_P))
    order = known[np.argsort(p_P[known], kind="stable")]
    factor = len(order) / np.arange(1, len(order) + 1)
    adjusted_P[order] = np.minimum(np.minimum.accumulate((factor * p_P[order])[::-1])[::-1], 1)
    return adjusted_P


def wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share; (NaN, NaN) without trials.

    (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    """
    if trials == 0:
        return NAN, NAN
    z, share = float(ndtri((1 + confidence) / 2)), successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # at 0 and n successes the border is 0 and 1 exactly, and rounding must not say otherwise
    low = 0.0 if successes == 0 else (centre - half) / (1 + z * z / trials)
    high = 1.0 if successes == trials else (centre + half) / (1 + z * z / trials)
    return low, high


def tost(difference_P: Array, margin: float, confidence: float) -> float:
    """The p-value of two one-sided t tests (Schuirmann 1987) that the mean difference lies within +-margin.

    The larger of p(mean <= -margin) and p(mean >= margin). At most a = 1 - confidence exactly when the t interval of
    confidence 1 - 2a lies within the margin. NaN where `paired_t` has no interval.
    """
    kept_P = difference_P[~np.isnan(difference_P)]
    n = len(kept_P)
    if n < 2 or np.ptp(kept_P) == 0:
        return NAN
    mean, error = float(kept_P.mean()), float(kept_P.std(ddof=1)) / math.sqrt(n)
    return float(max(stdtr(n - 1, -(mean + margin) / error), stdtr(n - 1, (mean - margin) / error)))


def decide(
    difference_P: Array, direction: Literal["greater", "less", "equivalent"], margin: float, confidence: float
) -> tuple[Verdict, Interval]:
    """What paired differences say of a hypothesis, by interval, and the interval that says it.

    greater:    supported where low > margin, refuted where high < margin.
    less:       supported where high < -margin, refuted where low > -margin.
    equivalent: the interval of confidence 1 - 2a (TOST); supported where it lies within +-margin, refuted where it lies
                wholly outside.
    Anything else, too few pairs included, is undecided.
    """
    interval = paired_t(difference_P, 2 * confidence - 1 if direction == "equivalent" else confidence)
    low, high = interval.low, interval.high
    supported, refuted = {
        "greater": (low > margin, high < margin),
        "less": (high < -margin, low > -margin),
        "equivalent": (-margin < low and high < margin, low > margin or high < -margin),
    }[direction]
    return ("supported" if supported else "refuted" if refuted else "undecided"), interval


def ratio_draws(numerator_G: Array, denominator_G: Array, times_BG: Array) -> Array:
    """A ratio of sums over resampled documents, (B,): sum_g c_bg num_g / sum_g c_bg den_g, c from `draws.resamples`.

    Two runs scored on the same documents with the same draws are paired: the quantiles of the difference of their draws
    are the paired document (cluster) bootstrap interval (Efron & Tibshirani 1993, ch. 8).
    """
    result: Array = (times_BG @ numerator_G) / (times_BG @ denominator_G)
    return result


def percentiles(drawn_B: Array, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap draws; (NaN, NaN) where a draw is NaN."""
    low, high = np.quantile(drawn_B, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def centred(estimate: float, drawn_B: Array, confidence: float) -> tuple[float, float]:
    """The interval around `estimate` with the spread of `drawn_B` about its own mean.

    For statistics such as I(E;D) that resampling biases: draws with twinned documents have more of it. The estimate has
    its bias removed by the null; the draws' common shift is that bias again and is taken off them.
    """
    low, high = percentiles(drawn_B - drawn_B.mean(), confidence)
    return estimate + low, estimate + high
