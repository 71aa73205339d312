"""Concatenate and cut: documents in order, an end-of-text token after each, cut every T tokens (as for GPT-2).

Stream position p, counted over all concatenated documents, is in block p // T. Every token is kept except the tail that
does not fill a block. Many documents are split, so this packing is the baseline for the others.

D documents, B blocks of T tokens, M segments (`data/packing/segments.py`).
"""

from collections.abc import Iterator

import numpy as np

from speciate.config.contracts.data import PackingOptions
from speciate.data.packing.segments import BLOCK, Ints

DOCUMENTS = 1 << 13
"""Number of documents that are planned at a time."""


class Options(PackingOptions):
    """Concatenation has no options."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """Yield the segments, int64 (M, 4), of documents of `lengths_D` tokens; the lengths exclude end-of-text tokens."""
    stream, num_blocks = 0, int(lengths_D.sum() + len(lengths_D)) // block_length
    pending = np.zeros((0, 4), np.int64)  # the segments of a block that is not yet full
    for start in range(0, len(lengths_D), DOCUMENTS):
        lengths_P = lengths_D[start : start + DOCUMENTS]
        stops_P = stream + np.cumsum(lengths_P + 1)
        starts_P = stops_P - lengths_P - 1
        first_P = starts_P // block_length
        num_P = (stops_P - 1) // block_length - first_P + 1  # blocks per document
        document_M = np.repeat(np.arange(len(lengths_P)), num_P)
        block_M = np.arange(len(document_M)) + np.repeat(first_P - np.cumsum(num_P) + num_P, num_P)
        stream_M = np.maximum(starts_P[document_M], block_M * block_length)
        columns = (block_M, stream_M - block_M * block_length, start + document_M, stream_M - starts_P[document_M])
        pending = np.concatenate((pending, np.stack(columns, axis=1)))
        stream = int(stops_P[-1])
        full = int(np.searchsorted(pending[:, BLOCK], min(stream // block_length, num_blocks)))
        yield pending[:full]
        pending = pending[full:]
