"""Sketches of sets too large to keep: how much of one text's word runs another text holds, without either text.

Of a set of hashes the k smallest are kept: a uniform sample of the set, since a hash knows nothing of what it stands
for (bottom-k sketches: Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches"). Sketches of parts merge into
the sketch of the whole. Two sketches hold everything of A and of B that lies below t, the smaller of their largest
hashes. With A_t and B_t those elements, and n of them in A_t,

    |A & B| / |A|         is about p = |A_t & B_t| / n,         with a standard error of sqrt(p (1 - p) (1 - f) / n)
    |A & B| / |A or B|    likewise, with n = |A_t or B_t|

where f = t / 2^64 is the part of all hashes that is seen. A set of fewer than k elements is kept whole; between two
such sets nothing is estimated, and the error is 0.

K hashes in a sketch.
"""

import dataclasses
import math
from typing import Self

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
SIZE = 16384
"""k: a share of one half is known to 0.4 %, and a sketch has 128 KiB."""
# Hashes gathered before they are sorted again.
_WAITING = 4


@dataclasses.dataclass(frozen=True)
class Sketch:
    """The smallest hashes of a set."""

    hashes_K: Hashes
    """Sorted, each once, at most `size`."""
    size: int = SIZE

    @property
    def whole(self) -> bool:
        """Whether these are all the hashes there are."""
        return len(self.hashes_K) < self.size

    def merge(self, other: Self) -> "Sketch":
        """The sketch of both sets together."""
        assert self.size == other.size, (self.size, other.size)
        return Sketch(np.union1d(self.hashes_K, other.hashes_K)[: self.size], self.size)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A share, 0 to 1, with its standard error, and how many elements it rests on; NaN where on none."""

    share: float
    error: float
    compared: int


class Growing:
    """A sketch of hashes that come a few at a time; it never holds more than a few times its size."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self._kept = np.zeros(0, np.uint64)
        self._waiting: list[Hashes] = []
        self._num_waiting = 0

    def add(self, hashes: Hashes) -> None:
        """Adds `hashes` (n,), in any order, some of them perhaps again."""
        if len(self._kept) == self.size:
            hashes = hashes[hashes < self._kept[-1]]
        self._waiting.append(hashes)
        self._num_waiting += len(hashes)
        if self._num_waiting >= _WAITING * self.size:
            self._settle()

    def sketch(self) -> Sketch:
        """The sketch of all that was added."""
        self._settle()
        return Sketch(self._kept, self.size)

    def _settle(self) -> None:
        self._kept = np.unique(np.concatenate([self._kept, *self._waiting]))[: self.size]
        self._waiting, self._num_waiting = [], 0


def containment(part: Sketch, other: Sketch) -> Estimate:
    """The share of the elements of `part`'s set that are in `other`'s."""
    below, seen = _below(part, other)
    mine, theirs = (sketch.hashes_K[sketch.hashes_K < below] if below else sketch.hashes_K for sketch in (part, other))
    return _share(len(np.intersect1d(mine, theirs, assume_unique=True)), len(mine), seen)


def similarity(one: Sketch, other: Sketch) -> Estimate:
    """The Jaccard similarity of the two sets: the share of all their elements that both have."""
    below, seen = _below(one, other)
    mine, theirs = (sketch.hashes_K[sketch.hashes_K < below] if below else sketch.hashes_K for sketch in (one, other))
    both = len(np.intersect1d(mine, theirs, assume_unique=True))
    return _share(both, len(mine) + len(theirs) - both, seen)


def _below(one: Sketch, other: Sketch) -> tuple[np.uint64 | None, float]:
    """The hash under which both sketches are complete (None: they are whole), and the part of all hashes under it."""
    ends = [sketch.hashes_K[-1] for sketch in (one, other) if not sketch.whole]
    return (min(ends), float(min(ends)) / 2**64) if ends else (None, 1.0)


def _share(both: int, compared: int, seen: float) -> Estimate:
    if not compared:
        return Estimate(math.nan, math.nan, 0)
    share = both / compared
    return Estimate(share, math.sqrt(share * (1 - share) * (1 - seen) / compared), compared)
