"""Best-fit decreasing: put items of given sizes into few bins of one capacity.

Items are placed from the largest to the smallest, each into the open bin with the least space that still holds it, or
into a new bin. All items of one size s are placed at once: a bin with r tokens of space that is the best fit stays the
best fit, so it takes r // s of them. So the work grows with the number of distinct sizes and spaces (at most T each),
not with the number of documents. The bins are filled exactly as item by item.

I items, M segments (`data/packing/segments.py`).
"""

import bisect
import itertools

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.indexing import Numbers
from speciate.data.packing.segments import BLOCK, OFFSET, Ints


def best_fit_decreasing(size_I: Numbers, capacity: int) -> tuple[Numbers, Numbers]:
    """Return each item's bin and offset in it, (I,) each, of the type of `size_I`; sizes are 1 to `capacity`."""
    order_I = np.argsort(-size_I, kind="stable").astype(size_I.dtype)
    bin_I, offset_I = np.zeros_like(size_I), np.zeros_like(size_I)
    bins_of: dict[int, list[Numbers]] = {}  # free space -> bins that have it, oldest first
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
                groups = bins_of.pop(space)
                bins = np.concatenate(groups) if len(groups) > 1 else groups[0]
            else:
                space = capacity
                bins = np.arange(num_bins, num_bins - (start - stop) // (capacity // size), dtype=size_I.dtype)
            per_bin = space // size
            taken = min(stop - start, per_bin * len(bins))
            used, over = -(-taken // per_bin), taken % per_bin  # the last bin used takes `over` items, or all
            items = order_I[start : start + taken]
            bin_I[items] = np.repeat(bins[:used], per_bin)[:taken] if per_bin > 1 else bins[:taken]
            offset_I[items] = capacity - space + (np.arange(taken) % per_bin * size if per_bin > 1 else 0)
            put(space - per_bin * size, bins[: used - (over > 0)])
            put(space - over * size, bins[used - (over > 0) : used])
            if space == capacity:
                num_bins += used
            else:
                put(space, bins[used:])
            start += taken
    return bin_I, offset_I


def inverse_order(order_X: Numbers) -> Numbers:
    """Return the position of each index in the permutation `order_X`."""
    positions_X = np.empty_like(order_X)
    positions_X[order_X] = np.arange(len(order_X))
    return positions_X


def segment_rows(*columns: npt.NDArray[np.number]) -> Ints:
    """Stack the columns block, offset, document and position into segments, int64 (M, 4)."""
    return np.stack(columns, axis=1).astype(np.int64)


def block_order(segments_M4: Ints, block_length: int) -> Ints:
    """Return the order of the segments by block and offset, int64 (M,)."""
    return np.argsort(segments_M4[:, BLOCK] * block_length + segments_M4[:, OFFSET])
