"""Find decisions that name one expert more than once, fast enough for billions of choices.

Shape suffixes: N decisions, K chosen experts.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 16
"""Decisions that are compared at once, in the processor's cache."""


def contiguous_columns(choice_NK: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the choices with each of the k columns in one piece of memory, which counts them fastest."""
    return np.ascontiguousarray(choice_NK.T).T


def names_one_twice(choice_NK: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return which decisions name an expert more than once, or None if none does."""
    num, k = choice_NK.shape
    twice_N: npt.NDArray[np.bool_] | None = None
    for start in range(0, num, BLOCK):
        block_NK = choice_NK[start : start + BLOCK]
        found = np.zeros(len(block_NK), dtype=bool)
        for right in range(1, k):
            for left in range(right):
                found |= block_NK[:, left] == block_NK[:, right]
        if found.any() and int(block_NK.min()) < 0:
            found &= (block_NK >= 0).sum(axis=1) > 1
            found[found] = [_is_twice(row) for row in block_NK[found]]
        if found.any():
            twice_N = np.zeros(num, dtype=bool) if twice_N is None else twice_N
            twice_N[start : start + BLOCK] = found
    return twice_N


def _is_twice(row_K: npt.NDArray[Any]) -> bool:
    made = row_K[row_K >= 0]
    return len(np.unique(made)) < len(made)
