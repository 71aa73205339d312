"""Best-fit packing in which each document lies in one block: what does not fit is cut off and lost, nothing is split.

1. A document of more than T tokens keeps its first T. Decision: no end-of-text token follows them, since the document
   does not end there; one that is kept whole has its own.
2. Best-fit decreasing (`data/packing/best_fit_decreasing.py`): documents from the longest to the shortest, each into the open block with the
   least space that still holds it, or into a new one.
3. Decision: blocks are never padded. The emptiest blocks are given up, and a gap of r tokens in another is filled by
   the head of the shortest of their documents that has r tokens, the rest of which is lost; where none is as long, by
   the longest whole, and so on with what is left of the gap. As few blocks are given up as a bisection finds enough to
   fill all gaps. The tail, whole documents of fewer than T tokens together, is dropped.

Every piece starts at its document's first token, so that no context begins in the middle of one. The price is what is
truncated: `pieces.summary` counts it.

D documents, K blocks kept of G bins, J documents to fill gaps with, M pieces (`data/packing/segments.py`), T = block_length.
"""

import bisect
import itertools
from collections.abc import Iterator

import numpy as np

from speciate.config.contracts.data import PackingOptions
from speciate.data.arrays.scratch import PORTION
from speciate.data.dedup.union_find import Numbers
from speciate.data.packing.best_fit_decreasing import best_fit_decreasing, inverse, rows
from speciate.data.packing.segments import Ints, last_block


class Options(PackingOptions):
    """None."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """The pieces, int64 (M, 4), of documents of `lengths_D` tokens, their end-of-text tokens not counted."""
    size_D = np.minimum(lengths_D + 1, block_length).astype(np.int32)
    bin_D, offset_D = best_fit_decreasing(size_D, block_length)
    filled_G = np.bincount(bin_D, weights=size_D).astype(np.int32)
    fullest_G = np.argsort(-filled_G, kind="stable").astype(bin_D.dtype)
    rank_D, gap_G = inverse(fullest_G)[bin_D], block_length - filled_G[fullest_G]
    del bin_D, filled_G, fullest_G

    def leaves_gaps(kept: int) -> bool:
        """Whether the documents of the other bins are too few to fill the gaps of the first `kept`."""
        return not cover(gap_G[:kept], size_D[rank_D >= kept], block_length)[2]

    num_blocks = bisect.bisect_left(range(1, len(gap_G) + 1), True, key=leaves_gaps)
    block_D = np.where(rank_D < num_blocks, rank_D, -1)
    gap_K = gap_G[:num_blocks]
    while len(gap_K):
        left = np.flatnonzero(block_D < 0)
        found, offset_D[left], complete = cover(gap_K, size_D[left], block_length)
        assert complete, "the bisection ended on blocks with gaps"
        block_D[left] = np.where(found < 0, -1, found + num_blocks - len(gap_K))
        # gaps filled with little loss may leave enough for one more block
        gap_K = np.full(int(size_D[block_D < 0].sum() >= block_length), block_length, np.int32)
        num_blocks += len(gap_K)
    placed = np.flatnonzero(block_D >= 0).astype(block_D.dtype)
    order = placed[np.argsort(block_D[placed].astype(np.int64) * block_length + offset_D[placed])]
    start = 0
    while start < len(order):
        documents = order[start : start + PORTION + block_length]
        if start + len(documents) < len(order):
            documents = documents[: last_block(block_D[documents])]
        yield rows(block_D[documents], offset_D[documents], documents, np.zeros(len(documents)))
        start += len(documents)


def cover(gap_K: Numbers, size_J: Numbers, block_length: int) -> tuple[Numbers, Numbers, bool]:
    """Fills the gaps at the ends of K blocks with J documents, each in one gap at most. Step 3 of this module.

    Gaps from the longest to the shortest; all gaps, and all documents, of one length are taken at once.

    Args:
        gap_K: tokens of space in each block; may be 0.
        size_J: tokens of each document.
        block_length: T.

    Returns:
        block_J: the block of each document, -1 where it is in none.
        offset_J: where it starts in the block; a document longer than what is left there is cut off.
        complete: whether every gap was filled.
    """
    block_J, offset_J = np.full_like(size_J, -1), np.zeros_like(size_J)
    documents, blocks = _by_value(size_J), _by_value(gap_K)
    sizes, spaces = sorted(documents), sorted(set(blocks) - {0})
    while spaces:
        space = spaces.pop()
        unfilled = blocks.pop(space)
        while len(unfilled):
            if not sizes:
                return block_J, offset_J, False
            place = min(bisect.bisect_left(sizes, space), len(sizes) - 1)
            size = sizes[place]
            taken = documents[size][: len(unfilled)]
            block_J[taken], offset_J[taken] = unfilled[: len(taken)], block_length - space
            documents[size] = documents[size][len(taken) :]
            if not len(documents[size]):
                sizes.pop(place)
            if size < space:
                if space - size not in blocks:
                    bisect.insort(spaces, space - size)
                    blocks[space - size] = unfilled[:0]
                blocks[space - size] = np.concatenate((blocks[space - size], unfilled[: len(taken)]))
            unfilled = unfilled[len(taken) :]
    return block_J, offset_J, True


def _by_value(value_X: Numbers) -> dict[int, Numbers]:
    """The places that hold each value, ascending."""
    order_X = np.argsort(value_X, kind="stable").astype(value_X.dtype)
    values, starts = np.unique(value_X[order_X], return_index=True)
    edges = itertools.pairwise([*starts.tolist(), len(value_X)])
    return {value: order_X[start:stop] for value, (start, stop) in zip(values.tolist(), edges, strict=True)}
