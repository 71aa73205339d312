"""Estimate how much of one set another set holds, from their sketches.

Two sketches (`data/card/sketch.py`) hold all hashes of the sets A and B up to t, the smaller of their largest hashes.
With A_t and B_t these elements, and n of them in A_t,

    |A & B| / |A|         is about p = |A_t & B_t| / n,         with a standard error of sqrt(p (1 - p) (1 - f) / n)
    |A & B| / |A or B|    likewise, with n = |A_t or B_t|

where f = t / 2^64 is the sampled fraction of all hashes. Between two complete sketches the shares are exact and the
error is 0.
"""

import dataclasses
import math

import numpy as np

from speciate.data.card.sketch import Hashes, Sketch


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A share, 0 to 1, with its standard error and the number of elements compared; NaN if there are none."""

    share: float
    error: float
    compared: int


def containment(part: Sketch, other: Sketch) -> Estimate:
    """Estimate the share of the elements of `part`'s set that are in `other`'s."""
    first, second, fraction = _comparable(part, other)
    return _estimate(len(np.intersect1d(first, second, assume_unique=True)), len(first), fraction)


def similarity(one: Sketch, other: Sketch) -> Estimate:
    """Estimate the Jaccard similarity of two sets: the share of the elements of their union that are in both."""
    first, second, fraction = _comparable(one, other)
    both = len(np.intersect1d(first, second, assume_unique=True))
    return _estimate(both, len(first) + len(second) - both, fraction)


def _comparable(one: Sketch, other: Sketch) -> tuple[Hashes, Hashes, float]:
    """Return the hashes of both sketches in the range where both are complete, and that range over all hashes."""
    largest = [sketch.hashes_K[-1] for sketch in (one, other) if not sketch.is_complete]
    if not largest:
        return one.hashes_K, other.hashes_K, 1.0
    limit = min(largest)
    first, second = (sketch.hashes_K[sketch.hashes_K < limit] for sketch in (one, other))
    return first, second, float(limit) / 2**64


def _estimate(both: int, compared: int, fraction: float) -> Estimate:
    if not compared:
        return Estimate(math.nan, math.nan, 0)
    share = both / compared
    return Estimate(share, math.sqrt(share * (1 - share) * (1 - fraction) / compared), compared)
