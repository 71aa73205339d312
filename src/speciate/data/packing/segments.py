"""Segments: contiguous tokens of one document in one block. Every packing plans them; blocks are filled from them.

A packing plans from the documents' lengths alone. Its plan is `segments_M4`, int64 (M, 4), one row per segment:

    block, offset in the block, document, position in the document's tokens

The rows are sorted by block and offset. The segments tile the blocks: each ends where the next one starts or at the end
of its block, and every block is full, without padding. A document of n tokens has n + 1 here: its end-of-text token is
at position n. A plan is yielded in chunks of whole blocks.

M segments, B blocks of T tokens, S chosen blocks, D documents.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

BLOCK, OFFSET, DOCUMENT, POSITION = range(4)


def segment_lengths(segments_M4: Ints, block_length: int) -> Ints:
    """Return the number of tokens of each segment, int64 (M,), for segments that tile whole blocks."""
    if not len(segments_M4):
        return np.zeros(0, np.int64)
    start_M = segments_M4[:, BLOCK] * block_length + segments_M4[:, OFFSET]
    lengths_M: Ints = np.diff(start_M, append=(segments_M4[-1, BLOCK] + 1) * block_length)
    return lengths_M


def documents_at(segments_M4: Ints, block_length: int) -> Ints:
    """Return the document of each position, int64 (B, T), in blocks that the segments tile."""
    documents = np.repeat(segments_M4[:, DOCUMENT], segment_lengths(segments_M4, block_length))
    return documents.reshape(-1, block_length)


def block_edges(segments_M4: Ints, num_blocks: int) -> Ints:
    """Return the row at which each block's segments start, int64 (B + 1,); the last entry is where they end."""
    column: Ints = np.ascontiguousarray(segments_M4[:, BLOCK])
    return np.searchsorted(column, np.arange(num_blocks + 1))


def select_blocks(segments_M4: Ints, edges: Ints, blocks_S: npt.NDArray[np.integer]) -> Ints:
    """Return the segments of the blocks `blocks_S`, with the blocks renumbered 0 .. S-1 in the given order.

    Args:
        segments_M4: segments as in this module's docstring; of a memory-mapped array only the chosen rows are read.
        edges: the `block_edges` of `segments_M4`.
        blocks_S: the blocks to select.
    """
    return gather_segments(segments_M4, edges[blocks_S], edges[blocks_S + 1])


def gather_segments(segments_M4: Ints, starts_S: Ints, stops_S: Ints) -> Ints:
    """Return the segments in the row ranges `starts_S` to `stops_S` (one per block); renumber the blocks 0 .. S-1."""
    row_ranges = [np.arange(start, stop) for start, stop in zip(starts_S, stops_S, strict=True)]
    rows: Ints = np.array(segments_M4[np.concatenate([np.zeros(0, np.int64), *row_ranges])])
    rows[:, BLOCK] = np.repeat(np.arange(len(starts_S)), stops_S - starts_S)
    return rows


def start_of_last_block(block_M: Ints) -> int:
    """Return the first index of the last value in sorted block numbers; 0 if there are none."""
    return int(np.searchsorted(block_M, block_M[-1])) if len(block_M) else 0


def concatenate_plan(plan: Iterable[Ints]) -> Ints:
    """Concatenate the chunks of a plan, int64 (M, 4)."""
    return np.concatenate([np.zeros((0, 4), np.int64), *plan])
