"""Sketches of sets that are too large to keep, such as the word n-grams of a text.

A sketch keeps the k smallest hashes of a set. They are a uniform sample of the set, since a hash is independent of what
is hashed (bottom-k sketches: Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches"). Sketches of parts
merge into the sketch of the whole. A set of fewer than k elements is kept completely. `data/card/overlap.py` compares
sketches.

K hashes in a sketch.
"""

import dataclasses
from typing import Self

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
SIZE = 16384
"""k: a share of one half is estimated with a standard error of 0.4 %; a sketch has 128 KiB."""
# Hashes are collected up to this many times the sketch's size before they are sorted again.
_MAX_PENDING = 4


@dataclasses.dataclass(frozen=True)
class Sketch:
    """The smallest hashes of a set."""

    hashes_K: Hashes
    """At most `size` distinct hashes, sorted."""
    size: int = SIZE

    @property
    def is_complete(self) -> bool:
        """Whether the sketch holds all hashes of the set."""
        return len(self.hashes_K) < self.size

    def merge(self, other: Self) -> "Sketch":
        """Return the sketch of the union of both sets."""
        assert self.size == other.size, (self.size, other.size)
        return Sketch(np.union1d(self.hashes_K, other.hashes_K)[: self.size], self.size)


class GrowingSketch:
    """A sketch that hashes are added to; it never holds more than a few times its size."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self._kept = np.zeros(0, np.uint64)
        self._pending: list[Hashes] = []
        self._num_pending = 0

    def add(self, hashes: Hashes) -> None:
        """Add `hashes` (n,), in any order; repeated hashes count once."""
        if len(self._kept) == self.size:
            hashes = hashes[hashes < self._kept[-1]]
        self._pending.append(hashes)
        self._num_pending += len(hashes)
        if self._num_pending >= _MAX_PENDING * self.size:
            self._compact()

    def sketch(self) -> Sketch:
        """Return the sketch of all hashes added so far."""
        self._compact()
        return Sketch(self._kept, self.size)

    def _compact(self) -> None:
        self._kept = np.unique(np.concatenate([self._kept, *self._pending]))[: self.size]
        self._pending, self._num_pending = [], 0
