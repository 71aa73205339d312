"""Pieces: which run of which document lies where in which block. What every packing decides, and how it is laid out.

A packing plans on lengths alone. Its plan is `pieces_M4`, int64 (M, 4), a row for each run of a document in a block:

    block, offset in the block, document, position in the document's tokens

sorted by block and offset. The pieces tile the blocks: one runs to where the next starts, or to its block's end, and
every block is full, there is no padding. A document of n tokens has n + 1 here: its end-of-text token is at position n.

M pieces, B blocks of T tokens, D documents, N tokens of all documents without end-of-text.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

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


def select(pieces_M4: Ints, edges: Ints, blocks_S: npt.NDArray[np.integer]) -> Ints:
    """The pieces of the blocks `blocks_S` alone, those blocks renumbered 0 .. S-1 in the order given.

    Args:
        pieces_M4: as in this module's docstring; of a memory-mapped array only the chosen rows are read.
        edges: `edges_of` them.
        blocks_S: which blocks.
    """
    starts_S, stops_S = edges[blocks_S], edges[blocks_S + 1]
    chosen = [np.arange(start, stop) for start, stop in zip(starts_S, stops_S, strict=True)]
    rows: Ints = np.array(pieces_M4[np.concatenate([np.zeros(0, np.int64), *chosen])])
    rows[:, BLOCK] = np.repeat(np.arange(len(blocks_S)), stops_S - starts_S)
    return rows


def summary(lengths_D: Ints, pieces_M4: Ints, num_blocks: int, block_length: int) -> dict[str, int]:
    """What a packing did, in numbers that add up over splits, shards and domains.

    documents; tokens_in (end-of-text included, one a document) = tokens_packed + tokens_truncated (of documents_cut,
    which are in the blocks in part) + tokens_dropped (of documents_dropped, which are in none); documents_split (in
    more than one piece); short_documents_split (those of them that one block could hold); pieces; blocks.
    """
    whole_D = lengths_D + 1
    kept_D = np.bincount(
        pieces_M4[:, DOCUMENT], weights=piece_lengths(pieces_M4, block_length), minlength=len(lengths_D)
    ).astype(np.int64)
    split_D = np.bincount(pieces_M4[:, DOCUMENT], minlength=len(lengths_D)) > 1
    dropped_D = kept_D == 0
    cut_D = ~dropped_D & (kept_D < whole_D)
    return {
        "documents": len(lengths_D),
        "tokens_in": int(whole_D.sum()),
        "tokens_packed": num_blocks * block_length,
        "tokens_truncated": int((whole_D - kept_D)[cut_D].sum()),
        "tokens_dropped": int(whole_D[dropped_D].sum()),
        "documents_split": int(split_D.sum()),
        "short_documents_split": int((split_D & (whole_D <= block_length)).sum()),
        "documents_cut": int(cut_D.sum()),
        "documents_dropped": int(dropped_D.sum()),
        "pieces": len(pieces_M4),
        "blocks": num_blocks,
    }
