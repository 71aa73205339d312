"""Best-fit packing: only documents longer than a block are cut, and no token is lost but a tail (Ding et al. 2024,
"Fewer Truncations Improve Language Modeling", arXiv 2404.10830).

1. A document of more than T tokens is cut into full blocks; its remainder is an item like any short document.
2. Best-fit decreasing (`data/packing/best_fit_decreasing.py`) places the items from the longest to the shortest, each
   into the open block with the least space that still holds it, or into a new one.
3. Decision: blocks are never padded, so the remaining gaps must be filled. The emptiest blocks are given up. Their
   items are concatenated and cut over the gaps of the other blocks, the fullest first. This makes as many blocks as
   concatenation would, with at most one cut per gap, and cuts few documents: those of the given-up blocks. The tail
   that does not fill a block (fewer than T tokens) is dropped, as in concatenation.

D documents, I items, G bins (open blocks), M segments (`data/packing/segments.py`), T = block_length.
"""

from collections.abc import Iterator

import numpy as np

from speciate.config.contracts.data import PackingOptions
from speciate.data.arrays.indexing import Numbers, index_dtype
from speciate.data.arrays.scratch import CHUNK_ROWS
from speciate.data.packing.best_fit_decreasing import best_fit_decreasing, block_order, inverse_order, segment_rows
from speciate.data.packing.segments import BLOCK, DOCUMENT, POSITION, Ints, start_of_last_block


class Options(PackingOptions):
    """Best fit has no options."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """Yield the segments, int64 (M, 4), of documents of `lengths_D` tokens; the lengths exclude end-of-text tokens."""
    num_full = 0
    for full in full_blocks(lengths_D, block_length):
        full[:, BLOCK] += num_full
        yield full
        num_full += len(full)
    rest_D = ((lengths_D + 1) % block_length).astype(np.int32)
    document_I = np.flatnonzero(rest_D).astype(index_dtype(len(lengths_D)))
    size_I = rest_D[document_I]
    del rest_D
    bin_I, offset_I = best_fit_decreasing(size_I, block_length)
    for packed in fill_gaps(bin_I, offset_I, document_I, size_I, block_length=block_length):
        packed[:, BLOCK] += num_full
        packed[:, POSITION] += lengths_D[packed[:, DOCUMENT]] // block_length * block_length  # tokens in full blocks
        yield packed


def full_blocks(lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """Yield chunks of the segments that are whole blocks, with the blocks of each chunk numbered from 0."""
    for start in range(0, len(lengths_D), CHUNK_ROWS):
        full_P = (lengths_D[start : start + CHUNK_ROWS] + 1) // block_length
        stops_P = np.cumsum(full_P)
        for first in range(0, int(stops_P[-1]), CHUNK_ROWS):
            segment_F = np.arange(first, min(first + CHUNK_ROWS, int(stops_P[-1])))
            document_F = np.searchsorted(stops_P, segment_F, side="right")
            position_F = (segment_F - (stops_P - full_P)[document_F]) * block_length
            yield segment_rows(segment_F - first, np.zeros(len(segment_F)), start + document_F, position_F)


def fill_gaps(
    bin_I: Numbers, offset_I: Numbers, document_I: Numbers, size_I: Numbers, *, block_length: int
) -> Iterator[Ints]:
    """Yield the segments (M, 4) of full blocks, numbered from 0, made from the items' bins (step 3 above).

    Args:
        bin_I: the bin of each item; a bin may have space at its end. Is overwritten.
        offset_I: the offset of each item in its bin.
        document_I: the document of each item; positions count from the item's start.
        size_I: the number of tokens of each item.
        block_length: T.
    """
    filled_G = np.bincount(bin_I, weights=size_I).astype(np.int32)
    fullest_G = np.argsort(-filled_G, kind="stable").astype(bin_I.dtype)
    num_blocks = int(filled_G.sum(dtype=np.int64)) // block_length
    bin_I[:] = inverse_order(fullest_G)[bin_I]
    order_I = np.argsort(bin_I.astype(np.int64) * block_length + offset_I).astype(bin_I.dtype)
    filled_G = filled_G[fullest_G]
    del fullest_G
    kept = int((bin_I < num_blocks).sum())
    start, donor, used = 0, kept, 0  # `donor` is the next item to cut over gaps; `used` of its tokens are placed
    while start < kept:
        items = order_I[start : min(start + CHUNK_ROWS + block_length, kept)]
        if start + len(items) < kept:
            items = items[: start_of_last_block(bin_I[items])]
        start += len(items)
        first, stop = int(bin_I[items[0]]), int(bin_I[items[-1]]) + 1
        uncut = segment_rows(bin_I[items], offset_I[items], document_I[items], np.zeros(len(items)))
        gap_B = block_length - filled_G[first:stop].astype(np.int64)
        needed = int(gap_B.sum())
        donors = order_I[donor : donor + needed + 1]  # each has at least one token
        cut, consumed, used = _cut_over_gaps(
            gap_B, block_length, document_I[donors], size_I[donors].astype(np.int64), used=used
        )
        donor += consumed
        cut[:, BLOCK] += first
        segments = np.concatenate((uncut, cut))
        yield segments[block_order(segments, block_length)]


def _cut_over_gaps(
    gap_B: Ints, block_length: int, document_J: Numbers, size_J: Ints, *, used: int
) -> tuple[Ints, int, int]:
    """Concatenate items, from token `used` of the first on, and cut them over the gaps at the ends of blocks.

    Returns:
        segments_M4: the segments, with blocks numbered from 0.
        consumed: the number of items that are used up.
        used: the number of tokens used of the next item.
    """
    stops_J = np.cumsum(size_J) - used
    starts_J = stops_J - size_J
    gaps_B = np.cumsum(gap_B)
    total, from_B = int(gaps_B[-1]), gaps_B - gap_B
    cuts = np.union1d(starts_J[(starts_J >= 0) & (starts_J < total)], from_B[gap_B > 0])
    item = np.searchsorted(starts_J, cuts, side="right") - 1
    block = np.searchsorted(gaps_B, cuts, side="right")
    segments = segment_rows(block, block_length + cuts - gaps_B[block], document_J[item], cuts - starts_J[item])
    consumed = int(np.searchsorted(stops_J, total, side="right"))
    return segments, consumed, total - int(starts_J[consumed]) if consumed < len(starts_J) else 0
