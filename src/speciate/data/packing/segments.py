"""Pieces: which run of which document lies where in which block. What every packing decides, and how it is laid out.

A packing plans on lengths alone. Its plan is `pieces_M4`, int64 (M, 4), a row for each run of a document in a block:

    block, offset in the block, document, position in the document's tokens

sorted by block and offset. The pieces tile the blocks: one runs to where the next starts, or to its block's end, and
every block is full, there is no padding. A document of n tokens has n + 1 here: its end-of-text token is at position n.
A plan comes portion by portion, each of whole blocks.

M pieces, B blocks of T tokens, D documents, N tokens of all documents without end-of-text.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.npy import chunks, release_pages
from speciate.data.arrays.scratch import PORTION

Ints = npt.NDArray[np.int64]

BLOCK, OFFSET, DOCUMENT, POSITION = range(4)
# Tokens gathered at a time; small enough for the index to stay in a processor's cache.
WINDOW = 1 << 16


def piece_lengths(pieces_M4: Ints, block_length: int) -> Ints:
    """The number of tokens of each piece, int64 (M,), for pieces that tile whole blocks."""
    if not len(pieces_M4):
        return np.zeros(0, np.int64)
    place_M = pieces_M4[:, BLOCK] * block_length + pieces_M4[:, OFFSET]
    lengths_M: Ints = np.diff(place_M, append=(pieces_M4[-1, BLOCK] + 1) * block_length)
    return lengths_M


def lay(
    values_N: npt.NDArray[Any],
    starts_D: Ints,
    lengths_D: Ints,
    pieces_M4: Ints,
    end: int,
    blocks_BT: npt.NDArray[Any],
) -> None:
    """Fills `blocks_BT` with the values that `pieces_M4` put there.

    Args:
        values_N: one value a token, all documents end to end (token ids, or their types).
        starts_D: where each document's values start in `values_N`.
        lengths_D: tokens of each document, without end-of-text.
        pieces_M4: as in this module's docstring; blocks 0 .. B-1, each of them full.
        end: the value at the place of an end-of-text token.
        blocks_BT: where to write, C-contiguous; may be memory-mapped.
    """
    num_blocks, block_length = blocks_BT.shape
    length_M = piece_lengths(pieces_M4, block_length)
    assert int(length_M.sum()) == num_blocks * block_length, "the pieces do not tile the blocks"
    if not num_blocks:
        return
    place_M = np.cumsum(length_M) - length_M
    document_M, position_M = pieces_M4[:, DOCUMENT], pieces_M4[:, POSITION]
    ends_M = position_M + length_M == lengths_D[document_M] + 1
    shift_M = starts_D[document_M] + position_M - place_M
    flat = blocks_BT.reshape(-1)
    turn = np.arange(WINDOW)
    for start in range(0, flat.size if len(values_N) else 0, WINDOW):
        stop = min(start + WINDOW, flat.size)
        first, last = np.searchsorted(place_M, start, side="right") - 1, np.searchsorted(place_M, stop)
        edges = np.concatenate(([start], place_M[first + 1 : last], [stop]))
        source = np.repeat(shift_M[first:last] + start, np.diff(edges))
        source += turn[: stop - start]
        # an end-of-text place points one past its document, at the end of all one past the array: written over below
        np.take(values_N, source, out=flat[start:stop], mode="clip")
    flat[(place_M + length_M - 1)[ends_M]] = end


def document_of(pieces_M4: Ints, block_length: int) -> Ints:
    """The document of each position, int64 (B, T), of blocks that the pieces tile."""
    documents = np.repeat(pieces_M4[:, DOCUMENT], piece_lengths(pieces_M4, block_length))
    return documents.reshape(-1, block_length)


def edges_of(pieces_M4: Ints, num_blocks: int) -> Ints:
    """Where each block's pieces start, int64 (B + 1,), the last of them where the last block's stop."""
    column: Ints = np.ascontiguousarray(pieces_M4[:, BLOCK])
    return np.searchsorted(column, np.arange(num_blocks + 1))


def edges_at(pieces_M4: Ints, blocks_S: npt.NDArray[np.integer]) -> Ints:
    """Where the pieces of some blocks start, int64 (S,), of memory-mapped pieces: few of them are looked at."""
    low_S, high_S = np.zeros(len(blocks_S), np.int64), np.full(len(blocks_S), len(pieces_M4))
    while (low_S < high_S).any():
        middle_S = (low_S + high_S) // 2
        before_S = pieces_M4[np.minimum(middle_S, len(pieces_M4) - 1), BLOCK] < blocks_S
        open_S = low_S < high_S
        low_S = np.where(open_S & before_S, middle_S + 1, low_S)
        high_S = np.where(open_S & ~before_S, middle_S, high_S)
        release_pages(pieces_M4)
    return low_S


def select(pieces_M4: Ints, edges: Ints, blocks_S: npt.NDArray[np.integer]) -> Ints:
    """The pieces of the blocks `blocks_S` alone, those blocks renumbered 0 .. S-1 in the order given.

    Args:
        pieces_M4: as in this module's docstring; of a memory-mapped array only the chosen rows are read.
        edges: `edges_of` them.
        blocks_S: which blocks.
    """
    return gather(pieces_M4, edges[blocks_S], edges[blocks_S + 1])


def gather(pieces_M4: Ints, starts_S: Ints, stops_S: Ints) -> Ints:
    """`select` where it is known between which rows each block's pieces are."""
    chosen = [np.arange(start, stop) for start, stop in zip(starts_S, stops_S, strict=True)]
    rows: Ints = np.array(pieces_M4[np.concatenate([np.zeros(0, np.int64), *chosen])])
    rows[:, BLOCK] = np.repeat(np.arange(len(starts_S)), stops_S - starts_S)
    return rows


def last_block(block_M: Ints) -> int:
    """Where the last of some sorted blocks starts."""
    return int(np.searchsorted(block_M, block_M[-1])) if len(block_M) else 0


def by_blocks(pieces_M4: Ints, block_length: int) -> Iterator[Ints]:
    """Copies of memory-mapped pieces, portion by portion, each of whole blocks."""
    start = 0
    while start < len(pieces_M4):
        rows = np.array(pieces_M4[start : start + PORTION + block_length])  # a block has no more pieces than tokens
        release_pages(pieces_M4)
        if start + len(rows) < len(pieces_M4):
            rows = rows[: last_block(rows[:, BLOCK])]
        if not len(rows):  # what belongs to no blocks: `belongs` says so
            return
        yield rows
        start += len(rows)


def belongs(pieces_M4: Ints, num_blocks: int, block_length: int, num_documents: int) -> bool:
    """Whether memory-mapped pieces tile so many blocks and are of so many documents."""
    before = None
    for _, rows in chunks(pieces_M4, PORTION):
        places = rows[:, BLOCK] * block_length + rows[:, OFFSET]
        if before is None and (rows[0, [BLOCK, OFFSET]] != 0).any():
            return False
        if (np.diff(places, prepend=-1 if before is None else before) <= 0).any():
            return False
        if rows[:, DOCUMENT].min() < 0 or rows[:, DOCUMENT].max() >= num_documents:
            return False
        before = int(places[-1])
    if before is None:
        return not num_blocks
    last = int(pieces_M4[-1, BLOCK]) + 1
    return last == num_blocks and before < last * block_length


def whole(plan: Iterable[Ints]) -> Ints:
    """All pieces of a plan that comes portion by portion, int64 (M, 4)."""
    return np.concatenate([np.zeros((0, 4), np.int64), *plan])


class Summary:
    """What a packing did, in numbers that add up over splits, shards and domains.

    documents; tokens_in (end-of-text included, one a document) = tokens_packed + tokens_truncated (of documents_cut,
    which are in the blocks in part) + tokens_dropped (of documents_dropped, which are in none); documents_split (in
    more than one piece); short_documents_split (those of them that one block could hold); pieces; blocks.
    """

    def __init__(self, lengths_D: Ints, block_length: int) -> None:
        self.lengths_D = lengths_D
        self.block_length = block_length
        self.pieces = self.blocks = 0
        self._lost_D = lengths_D + 1
        self._pieces_D = np.zeros(len(lengths_D), np.uint8)  # 2 is two or more

    def add(self, pieces_M4: Ints) -> None:
        """Counts a portion of the pieces, of whole blocks."""
        if not len(pieces_M4):
            return
        documents_M = pieces_M4[:, DOCUMENT]
        np.subtract.at(
            self._lost_D, documents_M, piece_lengths(pieces_M4 - (pieces_M4[0, BLOCK], 0, 0, 0), self.block_length)
        )
        found, counts = np.unique(documents_M, return_counts=True)
        self._pieces_D[found] = np.minimum(self._pieces_D[found] + counts, 2)
        self.pieces += len(pieces_M4)
        self.blocks = int(pieces_M4[-1, BLOCK]) + 1

    def counts(self) -> dict[str, int]:
        """The numbers."""
        lost_D, none_D, split_D = self._lost_D, self._pieces_D == 0, self._pieces_D > 1
        dropped = int(lost_D[none_D].sum())
        return {
            "documents": len(lost_D),
            "tokens_in": int(self.lengths_D.sum()) + len(lost_D),
            "tokens_packed": self.blocks * self.block_length,
            "tokens_truncated": int(lost_D.sum()) - dropped,
            "tokens_dropped": dropped,
            "documents_split": int(split_D.sum()),
            "short_documents_split": int((self.lengths_D[split_D] < self.block_length).sum()),
            "documents_cut": int(((lost_D > 0) & ~none_D).sum()),
            "documents_dropped": int(none_D.sum()),
            "pieces": self.pieces,
            "blocks": self.blocks,
        }
