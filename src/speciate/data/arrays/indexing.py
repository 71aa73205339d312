"""Small array helpers for the data stages: index types, ranges and distinct rows."""

from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.signedinteger[Any]]
"""Indices; int32 where that type can hold them."""


def index_dtype(count: int) -> npt.DTypeLike:
    """Return the type for the indices of `count` items: int32 where that can hold them, else int64."""
    return np.int32 if count < 1 << 31 else np.int64


def concatenate_ranges(firsts_D: npt.NDArray[np.int64], counts_D: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return first, first + 1, ... (`count` numbers) for each of D ranges, concatenated."""
    ends_D = np.cumsum(counts_D)
    total = int(ends_D[-1]) if len(ends_D) else 0
    indices: npt.NDArray[np.int64] = np.repeat(firsts_D - (ends_D - counts_D), counts_D)
    indices += np.arange(total)
    return indices


def unique_rows(rows_N2: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the distinct rows of an (N, 2) array.

    Returns:
        firsts_G: the index of the first occurrence of each distinct row, (G,), sorted by the rows' values.
        inverse_N: for each row, its position among the distinct rows, (N,).
    """
    order = np.lexsort((rows_N2[:, 1], rows_N2[:, 0]))  # stable: among equal rows the first comes first
    sorted_N2 = rows_N2[order]
    new = np.ones(len(order), bool)
    new[1:] = (sorted_N2[1:] != sorted_N2[:-1]).any(axis=1)
    inverse_N = np.empty(len(order), np.int64)
    inverse_N[order] = np.cumsum(new) - 1
    return order[new], inverse_N
