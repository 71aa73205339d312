"""Search, check and iterate over memory-mapped segments without loading all of them.

M segments, S chosen blocks of T tokens.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.npy import chunks, release_pages
from speciate.data.arrays.scratch import CHUNK_ROWS
from speciate.data.packing.segments import BLOCK, DOCUMENT, OFFSET, Ints, start_of_last_block


def find_block_starts(segments_M4: Ints, blocks_S: npt.NDArray[np.integer]) -> Ints:
    """Return the row at which each of some blocks' segments start, int64 (S,), by bisection: few rows are read."""
    low_S, high_S = np.zeros(len(blocks_S), np.int64), np.full(len(blocks_S), len(segments_M4))
    while (low_S < high_S).any():
        middle_S = (low_S + high_S) // 2
        before_S = segments_M4[np.minimum(middle_S, len(segments_M4) - 1), BLOCK] < blocks_S
        open_S = low_S < high_S
        low_S = np.where(open_S & before_S, middle_S + 1, low_S)
        high_S = np.where(open_S & ~before_S, middle_S, high_S)
        release_pages(segments_M4)
    return low_S


def whole_block_chunks(segments_M4: Ints, block_length: int) -> Iterator[Ints]:
    """Yield copies of memory-mapped segments in chunks of whole blocks."""
    start = 0
    while start < len(segments_M4):
        # a block has at most `block_length` segments, so the chunk holds at least one whole block
        rows = np.array(segments_M4[start : start + CHUNK_ROWS + block_length])
        release_pages(segments_M4)
        if start + len(rows) < len(segments_M4):
            rows = rows[: start_of_last_block(rows[:, BLOCK])]
        if not len(rows):  # not segments of whole blocks; `is_consistent` reports that
            return
        yield rows
        start += len(rows)


def is_consistent(segments_M4: Ints, num_blocks: int, block_length: int, num_documents: int) -> bool:
    """Return whether memory-mapped segments tile `num_blocks` blocks and belong to `num_documents` documents."""
    previous = None
    for _, rows in chunks(segments_M4, CHUNK_ROWS):
        starts = rows[:, BLOCK] * block_length + rows[:, OFFSET]
        if previous is None and (rows[0, [BLOCK, OFFSET]] != 0).any():
            return False
        if (np.diff(starts, prepend=-1 if previous is None else previous) <= 0).any():
            return False
        if rows[:, DOCUMENT].min() < 0 or rows[:, DOCUMENT].max() >= num_documents:
            return False
        previous = int(starts[-1])
    if previous is None:
        return not num_blocks
    last = int(segments_M4[-1, BLOCK]) + 1
    return last == num_blocks and previous < last * block_length
