"""Copy documents' values (token ids, or their types) into blocks, as segments say.

M segments, B blocks of T tokens, D documents, N tokens of all documents without end-of-text.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.data.packing.segments import DOCUMENT, POSITION, Ints, segment_lengths

# Number of tokens that are copied at a time, small enough for the index to stay in a processor's cache.
WINDOW = 1 << 16


def fill_blocks(
    values_N: npt.NDArray[Any],
    starts_D: Ints,
    lengths_D: Ints,
    segments_M4: Ints,
    *,
    end: int,
    blocks_BT: npt.NDArray[Any],
) -> None:
    """Fill `blocks_BT` with the values of the documents' tokens.

    Args:
        values_N: one value per token of the concatenated documents (token ids, or their types).
        starts_D: index in `values_N` of each document's first token.
        lengths_D: number of tokens of each document, without end-of-text.
        segments_M4: the segments of blocks 0 .. B-1, which must tile them (`data/packing/segments.py`).
        end: the value for end-of-text tokens.
        blocks_BT: the array to write to, C-contiguous; may be memory-mapped.
    """
    num_blocks, block_length = blocks_BT.shape
    length_M = segment_lengths(segments_M4, block_length)
    assert int(length_M.sum()) == num_blocks * block_length, "the segments do not tile the blocks"
    if not num_blocks:
        return
    start_M = np.cumsum(length_M) - length_M
    document_M, position_M = segments_M4[:, DOCUMENT], segments_M4[:, POSITION]
    ends_M = position_M + length_M == lengths_D[document_M] + 1
    shift_M = starts_D[document_M] + position_M - start_M
    flat = blocks_BT.reshape(-1)
    offsets = np.arange(WINDOW)
    for start in range(0, flat.size if len(values_N) else 0, WINDOW):
        stop = min(start + WINDOW, flat.size)
        first, last = np.searchsorted(start_M, start, side="right") - 1, np.searchsorted(start_M, stop)
        edges = np.concatenate(([start], start_M[first + 1 : last], [stop]))
        source = np.repeat(shift_M[first:last] + start, np.diff(edges))
        source += offsets[: stop - start]
        # an end-of-text token's source is one past its document, which may be one past the array; overwritten below
        np.take(values_N, source, out=flat[start:stop], mode="clip")
    flat[(start_M + length_M - 1)[ends_M]] = end
