"""q-values of many tests whose drawn statistics are pooled: B draws of m tests resolve p down to 1 / (B m).

A permutation test of its own has no p-value below 1 / (B + 1), so that among ten thousand tests no single one could
ever pass Benjamini-Hochberg. Each statistic is therefore divided by a quantile of its own null, and compared with the
draws of all tests together. m p is then the number of tests that chance carries as far, by draws of whole documents,
and Benjamini-Hochberg's q compares it with the number that came as far (as Tusher, Tibshirani & Chu 2001 do). That
number needs no assumption on how the tests depend on each other.

Shape suffixes: B draws, T tests.
"""

from collections.abc import Callable

import numpy as np

from speciate.selection.tally import Array

OWN_QUANTILE = 0.95
WIDTH, NUM_BINS = 1 / 512, 16_384
"""Sizes, in multiples of a test's own quantile, are counted in bins of this width."""
BLOCK = 4096
"""Tests whose draws are held at once."""


class PooledNull:
    """Collects observed statistics and counts drawn ones, by size."""

    def __init__(self) -> None:
        self._observed: list[Array] = []
        self._count = np.zeros(NUM_BINS, dtype=np.int64)

    def add(self, observed_T: Array, drawn_BT: Array) -> None:
        """Add tests by their statistics, >= 0; a test whose draws are all 0 has no p-value."""
        own_T = np.quantile(drawn_BT, OWN_QUANTILE, axis=0) if len(drawn_BT) else np.zeros(len(observed_T))
        known_T = np.isfinite(observed_T) & np.isfinite(own_T) & (own_T > 0)
        scale_T = 1 / np.where(known_T, own_T, 1.0)
        self._observed.append(np.where(known_T, observed_T * scale_T, np.nan))
        bins_BT = (drawn_BT[:, known_T] * (scale_T[known_T] / WIDTH)).ravel()
        np.minimum(bins_BT, NUM_BINS - 1, out=bins_BT)
        self._count += np.bincount(bins_BT.astype(np.int32), minlength=NUM_BINS)

    def add_in_blocks(self, observed_T: Array, draw: Callable[[slice], Array]) -> None:
        """Add tests whose draws are too many to be held at once.

        Args:
            observed_T: the observed statistics.
            draw: returns the drawn statistics of some of the tests, (B, tests).
        """
        before = len(self._observed)
        for start in range(0, len(observed_T), BLOCK):
            block = slice(start, start + BLOCK)
            self.add(observed_T[block], draw(block))
        self._observed[before:] = [np.concatenate(self._observed[before:])]

    def skip(self, num_tests: int) -> None:
        """Add tests that could not be made."""
        self._observed.append(np.full(num_tests, np.nan))

    def p_values(self) -> list[Array]:
        """Return the p-values, one array for each call of `add` or `skip`, in their order."""
        at_least = np.cumsum(self._count[::-1])[::-1]
        total = int(self._count.sum())
        found: list[Array] = []
        for observed_T in self._observed:
            known_T = np.isfinite(observed_T)
            # ties by rounding go to the draws: the observed value is lowered to the edge of its bin
            place_T = np.minimum(np.where(known_T, observed_T, 0) / WIDTH, NUM_BINS - 1).astype(np.int64)
            found.append(np.where(known_T, (1 + at_least[place_T]) / (1 + total), np.nan))
        return found
