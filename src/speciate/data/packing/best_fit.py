"""Best-fit packing: only documents longer than a block are cut (Ding et al. 2024, "Fewer Truncations Improve Language
Modeling", arXiv 2404.10830), and no token is lost.

1. A document of more than T tokens is cut into full blocks; what remains of it is an item like any short document.
2. Best-fit decreasing: items from the longest to the shortest, each into the open block with the least space that still
   holds it, or into a new one. All items of one length s are placed at once: as long as a block with r tokens of space
   is the best fit it stays so, and it takes r // s of them, so that the work grows with the number of different lengths
   and spaces (at most T each), not with the number of documents, and the blocks are filled exactly as item by item.
3. Decision: blocks are never padded, so the gaps that are left must be filled. The emptiest blocks are given up and
   their items, end to end, are cut over the gaps of the others, the fullest first. This makes as many blocks as
   concatenating would, with at most one cut a gap, and few documents are cut: those of the blocks given up. The tail
   that fills no block (fewer than T tokens) is dropped, as it is in concatenation.

D documents, I items, G bins (open blocks), M pieces (`data/pieces.py`), T = block_length.
"""

import bisect
import itertools

import numpy as np
import numpy.typing as npt

from speciate.data.pieces import Ints
from speciate.kinds import Kind


class Options(Kind):
    """Best fit has none."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Ints:
    """The pieces, int64 (M, 4), of documents of `lengths_D` tokens, their end-of-text tokens not counted."""
    full_D, rest_D = np.divmod(lengths_D + 1, block_length)
    document_F = np.repeat(np.arange(len(lengths_D)), full_D)
    num_full = len(document_F)
    chunk_F = np.arange(num_full) - np.repeat(np.cumsum(full_D) - full_D, full_D)
    full = _rows(np.arange(num_full), np.zeros(num_full), document_F, chunk_F * block_length)
    document_I = np.flatnonzero(rest_D)
    size_I = rest_D[document_I]
    bin_I, offset_I = best_fit_decreasing(size_I, block_length)
    items = _rows(bin_I, offset_I, document_I, full_D[document_I] * block_length)
    packed = fill_gaps(items, size_I, block_length)
    packed[:, 0] += num_full
    return np.concatenate((full, packed))


def best_fit_decreasing(size_I: Ints, capacity: int) -> tuple[Ints, Ints]:
    """The bin and the offset in it of each item, int64 (I,) each, of sizes between 1 and `capacity`."""
    order_I = np.argsort(-size_I, kind="stable")
    bin_I, offset_I = np.zeros_like(size_I), np.zeros_like(size_I)
    bins_of: dict[int, list[Ints]] = {}  # space left -> the bins that have it, oldest first
    spaces: list[int] = []  # the keys of `bins_of`, sorted
    num_bins = 0

    def put(space: int, bins: Ints) -> None:
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
                bins = np.arange(num_bins, num_bins - (start - stop) // (capacity // size))
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


def fill_gaps(items_I4: Ints, size_I: Ints, block_length: int) -> Ints:
    """Full blocks, numbered from 0, made of the items' bins: their pieces (M, 4). Step 3 of this module's docstring.

    Args:
        items_I4: pieces whose `block` is a bin that may have space left at its end.
        size_I: tokens of each item.
        block_length: T.
    """
    filled_G = np.bincount(items_I4[:, 0], weights=size_I).astype(np.int64)
    fullest_G = np.argsort(-filled_G, kind="stable")
    num_blocks = int(filled_G.sum()) // block_length
    rank_G = np.empty_like(fullest_G)
    rank_G[fullest_G] = np.arange(len(fullest_G))
    items_I4[:, 0] = rank_G[items_I4[:, 0]]
    kept_I = items_I4[:, 0] < num_blocks

    donors = np.flatnonzero(~kept_I)
    donors = donors[_by_place(items_I4[donors], block_length)]
    stops_J = np.cumsum(size_I[donors])
    starts_J = stops_J - size_I[donors]
    filled_B = filled_G[fullest_G[:num_blocks]]
    gaps_B = np.cumsum(block_length - filled_B)
    total = int(gaps_B[-1]) if num_blocks else 0
    from_B = gaps_B - (block_length - filled_B)
    place = np.union1d(starts_J[starts_J < total], from_B[from_B < gaps_B])
    item = np.searchsorted(starts_J, place, side="right") - 1
    block = np.searchsorted(gaps_B, place, side="right")
    source = items_I4[donors[item]]
    parts = _rows(block, filled_B[block] + place - from_B[block], source[:, 2], source[:, 3] + place - starts_J[item])
    pieces = np.concatenate((items_I4[kept_I], parts))
    return pieces[_by_place(pieces, block_length)]


def _by_place(pieces_M4: Ints, block_length: int) -> Ints:
    return np.argsort(pieces_M4[:, 0] * block_length + pieces_M4[:, 1])


def _rows(*columns: npt.NDArray[np.number]) -> Ints:
    return np.stack(columns, axis=1).astype(np.int64)
