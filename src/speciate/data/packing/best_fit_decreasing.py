"""Best-fit decreasing, for the packings: items of given sizes into as few bins of one capacity as it can.

Items from the longest to the shortest, each into the open bin with the least space that still holds it, or into a new
one. All items of one length s are placed at once: as long as a bin with r tokens of space is the best fit it stays so,
and it takes r // s of them, so that the work grows with the number of different lengths and spaces (at most T each),
not with the number of documents, and the bins are filled exactly as item by item.

I items, M pieces (`data/packing/segments.py`).
"""

import bisect
import itertools

import numpy as np
import numpy.typing as npt

from speciate.data.dedup.union_find import Numbers
from speciate.data.packing.segments import BLOCK, OFFSET, Ints


def best_fit_decreasing(size_I: Numbers, capacity: int) -> tuple[Numbers, Numbers]:
    """The bin and the offset in it of each item, (I,) each and of the type of the sizes, between 1 and `capacity`."""
    order_I = np.argsort(-size_I, kind="stable").astype(size_I.dtype)
    bin_I, offset_I = np.zeros_like(size_I), np.zeros_like(size_I)
    bins_of: dict[int, list[Numbers]] = {}  # space left -> the bins that have it, oldest first
    spaces: list[int] = []  # the keys of `bins_of`, sorted
    num_bins = 0

    def put(space: int, bins: Numbers) -> None:
        if space and len(bins):
            if space not in bins_of:
                bisect.insort(spaces, space)
            bins_of.setdefault(space, []).append(bins)

    edges = np.flatnonzero(np.diff(size_I[order_I], prepend=0, append=0)).tolist() if len(size_I) else []
    for start, stop in itertools.pairwise(edges):
        size = int(size_I[order_I[start]])
        while start < stop:
            fitting = bisect.bisect_left(spaces, size)
            if fitting < len(spaces):
                space = spaces.pop(fitting)
                found = bins_of.pop(space)
                bins = np.concatenate(found) if len(found) > 1 else found[0]
            else:
                space = capacity
                bins = np.arange(num_bins, num_bins - (start - stop) // (capacity // size), dtype=size_I.dtype)
            each = space // size
            taken = min(stop - start, each * len(bins))
            used, over = -(-taken // each), taken % each
            items = order_I[start : start + taken]
            bin_I[items] = np.repeat(bins[:used], each)[:taken] if each > 1 else bins[:taken]
            offset_I[items] = capacity - space + (np.arange(taken) % each * size if each > 1 else 0)
            put(space - each * size, bins[: used - (over > 0)])
            put(space - over * size, bins[used - (over > 0) : used])
            if space == capacity:
                num_bins += used
            else:
                put(space, bins[used:])
            start += taken
    return bin_I, offset_I


def inverse(order_X: Numbers) -> Numbers:
    """Where each index is in an order of them all."""
    places_X = np.empty_like(order_X)
    places_X[order_X] = np.arange(len(order_X))
    return places_X


def rows(*columns: npt.NDArray[np.number]) -> Ints:
    """Pieces, int64 (M, 4), of their four columns: block, offset, document, position."""
    return np.stack(columns, axis=1).astype(np.int64)


def by_place(pieces_M4: Ints, block_length: int) -> Ints:
    """The order of pieces by block and offset, int64 (M,)."""
    return np.argsort(pieces_M4[:, BLOCK] * block_length + pieces_M4[:, OFFSET])
