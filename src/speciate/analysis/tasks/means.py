"""Means of a task's scores with intervals: over seeds where there are several, else over groups of questions.

    mean of a run:      m_s = sum_q w_q v_q / sum_q w_q
    mean of an arm:     the mean of m_s over its seeds
    interval, seeds:    Student's t over the m_s
    interval, questions: the document bootstrap: groups of questions are drawn with replacement, the same in every run

The second interval stands where the first cannot: with one seed, or where all seeds have the same mean. Neither exists
where no group differs from another. The first says how certain a number is for another seed on these questions, the
second for other questions to these models. All seeds get the same questions, so seeds that agree show no luck of the
questions: a score counts as above that of guessing only where both intervals of the difference lie above zero.

Shape suffixes: B draws, G groups of questions, S seeds.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from speciate.analysis.draws import resample_counts, sum_into
from speciate.analysis.statistics import document_interval, effective_number, paired_t, ratio_draws
from speciate.selection.tally import Array

NAN = float("nan")
SEEDS, QUESTIONS = "seeds", "questions"


@dataclass(frozen=True)
class Settings:
    """How intervals are made."""

    confidence: float
    resamples: int
    draw_seed: int

    def times(self, num_groups: int) -> Array:
        """Return how often each draw takes each group, (B, G)."""
        return _times(num_groups, self.resamples, self.draw_seed)


@functools.lru_cache(maxsize=64)
def _times(num_groups: int, resamples: int, seed: int) -> Array:
    return resample_counts(np.zeros(num_groups, dtype=np.int64), resamples, seed)


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; NaN where there is none."""

    value: float
    low: float
    high: float
    interval: str
    """What the interval is over: `seeds`, `questions`, or nothing."""


def mean_of_runs(runs: Sequence[pd.DataFrame], settings: Settings) -> Estimate:
    """Return the weighted mean over questions, then over runs, with its interval.

    Args:
        runs: for each seed, its questions: value, weight, group.
        settings: how intervals are made.
    """
    return _estimate([weighted_mean(run) for run in runs], lambda: _drawn([[run] for run in runs], settings), settings)


def is_at_chance(runs: Sequence[pd.DataFrame], settings: Settings) -> bool:
    """Tell whether runs score no more than guessing does; False where nothing says what guessing scores.

    An interval of value minus chance that holds 0 or lies below it says so, be it over seeds or over questions. Without
    an interval the mean itself does.

    Args:
        runs: for each seed, its questions: value, weight, group, chance.
        settings: how intervals are made.
    """
    beyond = [run.assign(value=run["value"] - run["chance"]) for run in runs]
    over_seeds = mean_of_runs(beyond, settings)
    drawn_B, num_groups = _drawn([[run] for run in beyond], settings)
    low, _ = document_interval(drawn_B, settings.confidence, num_groups)
    lows = [bound for bound in (over_seeds.low, low) if not math.isnan(bound)]
    return bool(min(lows or [over_seeds.value]) <= 0)


def difference_of_runs(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], settings: Settings) -> Estimate:
    """Return the mean over seeds of the first run's weighted mean minus the second's, with its interval.

    Args:
        pairs: for each seed, two runs on the same questions, in the same order.
        settings: how intervals are made.
    """
    differences = [weighted_mean(arm) - weighted_mean(reference) for arm, reference in pairs]
    return _estimate(differences, lambda: _drawn(pairs, settings), settings)


def weighted_mean(run: pd.DataFrame, column: str = "value") -> float:
    """Return the weighted mean of a column over the questions of a run."""
    return float(np.average(run[column], weights=run["weight"]))


def _estimate(values: Sequence[float], draw: Callable[[], tuple[Array, float]], settings: Settings) -> Estimate:
    """Return the mean of one value a seed, with the interval over seeds, or else that over questions."""
    over_seeds = paired_t(np.array(values, dtype=float), settings.confidence)
    if not math.isnan(over_seeds.low):
        return Estimate(over_seeds.estimate, over_seeds.low, over_seeds.high, SEEDS)
    drawn_B, num_groups = draw()
    if num_groups > 1 and np.ptp(drawn_B) > 0:
        return Estimate(
            over_seeds.estimate, *document_interval(drawn_B, settings.confidence, num_groups), interval=QUESTIONS
        )
    return Estimate(over_seeds.estimate, NAN, NAN, "")


def _drawn(parts: Sequence[Sequence[pd.DataFrame]], settings: Settings) -> tuple[Array, float]:
    """Return draws of the mean over seeds, and the effective number of groups.

    Args:
        parts: for each seed one run, or two whose difference is drawn.
        settings: how intervals are made.
    """
    names = np.unique(np.concatenate([run["group"].to_numpy(dtype=str) for part in parts for run in part]))
    times_BG = settings.times(len(names))
    drawn_SB, sizes_G = [], np.zeros(len(names))
    for part in parts:
        ratios = []
        for run in part:
            place = np.searchsorted(names, run["group"].to_numpy(dtype=str))
            weight = run["weight"].to_numpy(dtype=float)
            weight_G = sum_into(place, len(names), weight)
            value_G = sum_into(place, len(names), weight * run["value"].to_numpy(dtype=float))
            ratios.append(ratio_draws(value_G, weight_G, times_BG))
            sizes_G += weight_G
        drawn_SB.append(ratios[0] if len(ratios) == 1 else ratios[0] - ratios[1])
    mean_B: Array = np.mean(drawn_SB, axis=0)
    return mean_B, effective_number(sizes_G)
