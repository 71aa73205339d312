"""Best-fit packing that never splits a document: each is in one block, and what does not fit is truncated.

1. A document of more than T tokens keeps its first T tokens. Decision: no end-of-text token follows them, since the
   document does not end there. A document that is kept whole has its end-of-text token.
2. Best-fit decreasing (`data/packing/best_fit_decreasing.py`) places the documents from the longest to the shortest,
   each into the open block with the least space that still holds it, or into a new one.
3. Decision: blocks are never padded. The emptiest blocks are given up, and their documents fill the gaps of the others.
   A gap of r tokens takes the first r tokens of the shortest document that has as many; the rest is lost. If none is
   that long, the gap takes the longest document whole, and the rest of the gap is filled in the same way. A bisection
   finds the smallest number of blocks to give up. The tail, documents of fewer than T tokens in total, is dropped.

Every segment starts at its document's first token, so no context begins in the middle of a document. The price is the
truncated text, which `data/packing/summary.py` counts.

D documents, K blocks kept of G bins, J documents that fill gaps, M segments (`data/packing/segments.py`),
T = block_length.
"""

import bisect
import itertools
from collections.abc import Iterator

import numpy as np

from speciate.config.contracts.data import PackingOptions
from speciate.data.arrays.indexing import Numbers
from speciate.data.arrays.scratch import CHUNK_ROWS
from speciate.data.packing.best_fit_decreasing import best_fit_decreasing, inverse_order, segment_rows
from speciate.data.packing.segments import Ints, start_of_last_block


class Options(PackingOptions):
    """Truncating best fit has no options."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """Yield the segments, int64 (M, 4), of documents of `lengths_D` tokens; the lengths exclude end-of-text tokens."""
    size_D = np.minimum(lengths_D + 1, block_length).astype(np.int32)
    bin_D, offset_D = best_fit_decreasing(size_D, block_length)
    filled_G = np.bincount(bin_D, weights=size_D).astype(np.int32)
    fullest_G = np.argsort(-filled_G, kind="stable").astype(bin_D.dtype)
    rank_D, gap_G = inverse_order(fullest_G)[bin_D], block_length - filled_G[fullest_G]
    del bin_D, filled_G, fullest_G

    def leaves_gaps(kept: int) -> bool:
        """Return whether the documents of the other bins are too few to fill the gaps of the first `kept` bins."""
        return not cover_gaps(gap_G[:kept], size_D[rank_D >= kept], block_length)[2]

    num_blocks = bisect.bisect_left(range(1, len(gap_G) + 1), True, key=leaves_gaps)
    block_D = np.where(rank_D < num_blocks, rank_D, -1)
    gap_K = gap_G[:num_blocks]
    while len(gap_K):
        unplaced = np.flatnonzero(block_D < 0)
        block_J, offset_D[unplaced], complete = cover_gaps(gap_K, size_D[unplaced], block_length)
        assert complete, "the bisection ended with unfilled gaps"
        block_D[unplaced] = np.where(block_J < 0, -1, block_J + num_blocks - len(gap_K))
        # if filling lost little, enough tokens may remain for one more block
        gap_K = np.full(int(size_D[block_D < 0].sum() >= block_length), block_length, np.int32)
        num_blocks += len(gap_K)
    placed = np.flatnonzero(block_D >= 0).astype(block_D.dtype)
    order = placed[np.argsort(block_D[placed].astype(np.int64) * block_length + offset_D[placed])]
    start = 0
    while start < len(order):
        documents = order[start : start + CHUNK_ROWS + block_length]
        if start + len(documents) < len(order):
            documents = documents[: start_of_last_block(block_D[documents])]
        yield segment_rows(block_D[documents], offset_D[documents], documents, np.zeros(len(documents)))
        start += len(documents)


def cover_gaps(gap_K: Numbers, size_J: Numbers, block_length: int) -> tuple[Numbers, Numbers, bool]:
    """Fill the gaps at the ends of K blocks with J documents, each in at most one gap (step 3 above).

    Gaps are filled from the longest to the shortest; gaps and documents of one length are processed at once.

    Args:
        gap_K: free tokens in each block; may be 0.
        size_J: number of tokens of each document.
        block_length: T.

    Returns:
        block_J: the block of each document, or -1 if it is in none.
        offset_J: the document's offset in its block; a document longer than the remaining space is truncated.
        complete: whether every gap was filled.
    """
    block_J, offset_J = np.full_like(size_J, -1), np.zeros_like(size_J)
    documents, blocks = _indices_by_value(size_J), _indices_by_value(gap_K)
    sizes, spaces = sorted(documents), sorted(set(blocks) - {0})
    while spaces:
        space = spaces.pop()
        unfilled = blocks.pop(space)
        while len(unfilled):
            if not sizes:
                return block_J, offset_J, False
            index = min(bisect.bisect_left(sizes, space), len(sizes) - 1)
            size = sizes[index]
            taken = documents[size][: len(unfilled)]
            block_J[taken], offset_J[taken] = unfilled[: len(taken)], block_length - space
            documents[size] = documents[size][len(taken) :]
            if not len(documents[size]):
                sizes.pop(index)
            if size < space:
                if space - size not in blocks:
                    bisect.insort(spaces, space - size)
                    blocks[space - size] = unfilled[:0]
                blocks[space - size] = np.concatenate((blocks[space - size], unfilled[: len(taken)]))
            unfilled = unfilled[len(taken) :]
    return block_J, offset_J, True


def _indices_by_value(value_X: Numbers) -> dict[int, Numbers]:
    """Return value -> the indices that hold it, ascending."""
    order_X = np.argsort(value_X, kind="stable").astype(value_X.dtype)
    values, starts = np.unique(value_X[order_X], return_index=True)
    edges = itertools.pairwise([*starts.tolist(), len(value_X)])
    return {value: order_X[start:stop] for value, (start, stop) in zip(values.tolist(), edges, strict=True)}
