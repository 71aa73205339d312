"""Means of a task's scores with intervals: over seeds where there are several, else over groups of questions.

    mean of a run:       m_s = sum_q w_q v_q / sum_q w_q
    mean of an arm:      the mean of m_s over its seeds
    interval, seeds:     Student's t over the m_s
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

from speciate.analysis.draws import resample_counts, sum_into
from speciate.analysis.statistics import document_interval, effective_number, paired_t, ratio_draws
from speciate.analysis.tasks.cells import NAN, Answers
from speciate.selection.tally import Array

SEEDS, QUESTIONS = "seeds", "questions"
ROUNDING = 1e-12
"""Means of the same scores that were added in another order differ by less, relative to the largest."""


@dataclass(frozen=True)
class Settings:
    """How intervals are made."""

    confidence: float
    resamples: int
    draw_seed: int


@functools.lru_cache(maxsize=16)
def _times(num_groups: int, resamples: int, seed: int) -> Array:
    """Return how often each draw takes each group, (B, G)."""
    return resample_counts(np.zeros(num_groups, dtype=np.int64), resamples, seed)


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; NaN where there is none."""

    value: float
    low: float
    high: float
    interval: str
    """What the interval is over: `seeds`, `questions`, or nothing."""


def mean_of_runs(runs: Sequence[Answers], settings: Settings) -> Estimate:
    """Return the weighted mean over questions, then over runs, one a seed, with its interval."""
    return _estimate([run.mean() for run in runs], lambda: _drawn([[run] for run in runs], settings), settings)


def is_at_chance(runs: Sequence[Answers], settings: Settings) -> bool:
    """Tell whether runs, one a seed, score no more than guessing; False where nothing says what guessing scores.

    An interval of value minus chance that holds 0 or lies below it says so, be it over seeds or over questions. Without
    an interval the mean itself does.
    """
    beyond = [run.beyond_chance() for run in runs]
    drawn: Callable[[], tuple[Array, float]] = functools.cache(lambda: _drawn([[run] for run in beyond], settings))
    over_seeds = _estimate([run.mean() for run in beyond], drawn, settings)
    if math.isnan(over_seeds.value):
        return False
    low, _ = document_interval(drawn()[0], settings.confidence, drawn()[1])
    lows = [bound for bound in (over_seeds.low, low) if not math.isnan(bound)]
    return bool(min(lows or [over_seeds.value]) <= 0)


def difference_of_runs(pairs: Sequence[tuple[Answers, Answers]], settings: Settings) -> Estimate:
    """Return the mean over seeds of the first run's weighted mean minus the second's, with its interval.

    Args:
        pairs: for each seed, two runs on the same questions.
        settings: how intervals are made.
    """
    differences = [arm.mean() - reference.mean() for arm, reference in pairs]
    return _estimate(differences, lambda: _drawn(pairs, settings), settings)


def _estimate(values: Sequence[float], draw: Callable[[], tuple[Array, float]], settings: Settings) -> Estimate:
    """Return the mean of one value a seed, with the interval over seeds, or else that over questions."""
    value_S = np.array(values, dtype=float)
    over_seeds = paired_t(np.full_like(value_S, value_S.mean()) if _is_same(value_S) else value_S, settings.confidence)
    if not math.isnan(over_seeds.low):
        return Estimate(over_seeds.estimate, over_seeds.low, over_seeds.high, SEEDS)
    drawn_B, num_groups = draw()
    if num_groups > 1 and not _is_same(drawn_B):
        bounds = document_interval(drawn_B, settings.confidence, num_groups)
        return Estimate(over_seeds.estimate, *bounds, interval=QUESTIONS)
    return Estimate(over_seeds.estimate, NAN, NAN, "")


def _is_same(value_X: Array) -> bool:
    """Return whether values differ by no more than the rounding of sums does."""
    return bool(np.ptp(value_X) <= ROUNDING * max(1.0, float(np.abs(value_X).max())))


def _drawn(parts: Sequence[Sequence[Answers]], settings: Settings) -> tuple[Array, float]:
    """Return draws of the mean over seeds, and the effective number of groups.

    Args:
        parts: for each seed one run, or two whose difference is drawn.
        settings: how intervals are made.
    """
    numbers = np.unique(np.concatenate([run.group_Q for part in parts for run in part]))
    times_BG = _times(len(numbers), settings.resamples, settings.draw_seed)
    drawn_SB, size_G = [], np.zeros(len(numbers))
    for part in parts:
        ratios = []
        for run in part:
            place_Q = np.searchsorted(numbers, run.group_Q)
            weight_G = sum_into(place_Q, len(numbers), run.weight_Q)
            value_G = sum_into(place_Q, len(numbers), run.weight_Q * run.value_Q)
            ratios.append(ratio_draws(value_G, weight_G, times_BG))
            size_G += weight_G
        drawn_SB.append(ratios[0] if len(ratios) == 1 else ratios[0] - ratios[1])
    mean_B: Array = np.mean(drawn_SB, axis=0)
    return mean_B, effective_number(size_G)
