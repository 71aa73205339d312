"""Best-fit packing: only documents longer than a block are cut (Ding et al. 2024, "Fewer Truncations Improve Language
Modeling", arXiv 2404.10830), and no token is lost.

1. A document of more than T tokens is cut into full blocks; what remains of it is an item like any short document.
2. Best-fit decreasing (`data/packing/best_fit_decreasing.py`): items from the longest to the shortest, each into the open block with the least
   space that still holds it, or into a new one.
3. Decision: blocks are never padded, so the gaps that are left must be filled. The emptiest blocks are given up and
   their items, end to end, are cut over the gaps of the others, the fullest first. This makes as many blocks as
   concatenating would, with at most one cut a gap, and few documents are cut: those of the blocks given up. The tail
   that fills no block (fewer than T tokens) is dropped, as it is in concatenation.

D documents, I items, G bins (open blocks), M pieces (`data/packing/segments.py`), T = block_length.
"""

from collections.abc import Iterator

import numpy as np

from speciate.config.contracts.data import PackingOptions
from speciate.data.arrays.scratch import PORTION, index_type
from speciate.data.dedup.union_find import Numbers
from speciate.data.packing.best_fit_decreasing import best_fit_decreasing, by_place, inverse, rows
from speciate.data.packing.segments import BLOCK, DOCUMENT, POSITION, Ints, last_block


class Options(PackingOptions):
    """Best fit has none."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """The pieces, int64 (M, 4), of documents of `lengths_D` tokens, their end-of-text tokens not counted."""
    num_full = 0
    for full in full_blocks(lengths_D, block_length):
        full[:, BLOCK] += num_full
        yield full
        num_full += len(full)
    rest_D = ((lengths_D + 1) % block_length).astype(np.int32)
    document_I = np.flatnonzero(rest_D).astype(index_type(len(lengths_D)))
    size_I = rest_D[document_I]
    del rest_D
    bin_I, offset_I = best_fit_decreasing(size_I, block_length)
    for packed in fill_gaps(bin_I, offset_I, document_I, size_I, block_length):
        packed[:, BLOCK] += num_full
        packed[:, POSITION] += lengths_D[packed[:, DOCUMENT]] // block_length * block_length  # what full blocks have
        yield packed


def full_blocks(lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """The pieces that are whole blocks, each portion's blocks numbered from 0."""
    for start in range(0, len(lengths_D), PORTION):
        full_P = (lengths_D[start : start + PORTION] + 1) // block_length
        stops_P = np.cumsum(full_P)
        for first in range(0, int(stops_P[-1]), PORTION):
            piece_F = np.arange(first, min(first + PORTION, int(stops_P[-1])))
            document_F = np.searchsorted(stops_P, piece_F, side="right")
            position_F = (piece_F - (stops_P - full_P)[document_F]) * block_length
            yield rows(piece_F - first, np.zeros(len(piece_F)), start + document_F, position_F)


def fill_gaps(
    bin_I: Numbers, offset_I: Numbers, document_I: Numbers, size_I: Numbers, block_length: int
) -> Iterator[Ints]:
    """Full blocks, numbered from 0, made of the items' bins: their pieces (M, 4). Step 3 of this module's docstring.

    Args:
        bin_I: the bin of each item, which may have space left at its end; is written over.
        offset_I: where the item is in it.
        document_I: its document; positions are counted from the item's start.
        size_I: its tokens.
        block_length: T.
    """
    filled_G = np.bincount(bin_I, weights=size_I).astype(np.int32)
    fullest_G = np.argsort(-filled_G, kind="stable").astype(bin_I.dtype)
    num_blocks = int(filled_G.sum(dtype=np.int64)) // block_length
    bin_I[:] = inverse(fullest_G)[bin_I]
    order_I = np.argsort(bin_I.astype(np.int64) * block_length + offset_I).astype(bin_I.dtype)
    filled_G = filled_G[fullest_G]
    del fullest_G
    kept = int((bin_I < num_blocks).sum())
    start, donor, used = 0, kept, 0  # of `donor`, the next item to be cut over gaps, so many tokens are used
    while start < kept:
        items = order_I[start : min(start + PORTION + block_length, kept)]
        if start + len(items) < kept:
            items = items[: last_block(bin_I[items])]
        start += len(items)
        first, stop = int(bin_I[items[0]]), int(bin_I[items[-1]]) + 1
        whole = rows(bin_I[items], offset_I[items], document_I[items], np.zeros(len(items)))
        gap_B = block_length - filled_G[first:stop].astype(np.int64)
        needed = int(gap_B.sum())
        donors = order_I[donor : donor + needed + 1]  # each has a token at least
        parts, given, used = _cut(gap_B, block_length, document_I[donors], size_I[donors].astype(np.int64), used)
        donor += given
        parts[:, BLOCK] += first
        pieces = np.concatenate((whole, parts))
        yield pieces[by_place(pieces, block_length)]


def _cut(gap_B: Ints, block_length: int, document_J: Numbers, size_J: Ints, used: int) -> tuple[Ints, int, int]:
    """Items, end to end from token `used` of the first on, cut over the gaps at the ends of blocks.

    Returns:
        pieces (M, 4): blocks numbered from 0.
        given: how many items are used up.
        used: how many tokens of the next one are.
    """
    stops_J = np.cumsum(size_J) - used
    starts_J = stops_J - size_J
    gaps_B = np.cumsum(gap_B)
    total, from_B = int(gaps_B[-1]), gaps_B - gap_B
    place = np.union1d(starts_J[(starts_J >= 0) & (starts_J < total)], from_B[gap_B > 0])
    item = np.searchsorted(starts_J, place, side="right") - 1
    block = np.searchsorted(gaps_B, place, side="right")
    parts = rows(block, block_length + place - gaps_B[block], document_J[item], place - starts_J[item])
    given = int(np.searchsorted(stops_J, total, side="right"))
    return parts, given, total - int(starts_J[given]) if given < len(starts_J) else 0
