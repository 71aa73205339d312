"""Means over a study's seeds and differences between arms paired by seed, as sentences tell them."""

import math

import numpy as np
import pandas as pd

from speciate.analysis.statistics import Interval, paired_t
from speciate.reporting.formats import format_interval, format_number


def mean_over_seeds(runs: pd.DataFrame, statistic: str, arm: str, confidence: float) -> Interval:
    """Return the mean of a statistic over an arm's seeds, with Student's interval."""
    values = runs.loc[runs["ablation"] == arm, statistic].to_numpy(dtype=float)
    return paired_t(values, confidence)


def paired_difference(runs: pd.DataFrame, statistic: str, arms: tuple[str, str], confidence: float) -> Interval:
    """Return the mean of the first arm minus the second over the seeds that both have, with Student's paired interval.

    For the study's reference it is the row of table `comparisons`.
    """
    wide = runs[runs["ablation"].isin(arms)].pivot(index="seed", columns="ablation", values=statistic)
    if not set(arms) <= set(wide.columns):
        return paired_t(np.array([]), confidence)
    return paired_t((wide[arms[0]] - wide[arms[1]]).to_numpy(dtype=float), confidence)


def is_known(interval: Interval) -> bool:
    """Return whether there is an estimate at all."""
    return not math.isnan(interval.estimate)


def is_apart(interval: Interval) -> bool:
    """Return whether the interval excludes zero; False where there is none."""
    return interval.low > 0 or interval.high < 0


def format_estimate(interval: Interval, unit: str, *, sign: bool = False, digits: int = 3) -> str:
    """Return '0.063 [0.049, 0.077] nats'; without an interval, the number of seeds says why."""
    number = format_number(interval.estimate, digits, sign)
    if math.isnan(interval.low):
        why = "one seed, so no interval" if interval.num_pairs == 1 else "the same in every seed, so no interval"
        return f"{number} {unit} ({why})"
    return f"{number} {format_interval(interval.low, interval.high, digits, sign)} {unit}"


def format_change(interval: Interval, unit: str, words: tuple[str, str], digits: int = 3) -> str:
    """Return a difference without its sign and with a word for it: '0.063 [0.049, 0.077] nats lower'.

    `words` are those for a smaller and for a larger value.
    """
    less = interval.estimate < 0
    low, high = (-interval.high, -interval.low) if less else (interval.low, interval.high)
    size = Interval(abs(interval.estimate), low, high, interval.p_value, interval.num_pairs, math.nan)
    return f"{format_estimate(size, unit, digits=digits)} {words[0] if less else words[1]}"
