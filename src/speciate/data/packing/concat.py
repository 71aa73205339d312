"""Concatenate and cut: documents in order, an end-of-text token after each, cut every T tokens (GPT-2's way).

block of stream position p = p // T, p over all documents end to end. Keeps every token but the tail that fills no
block, and splits many documents: the yardstick for the other packings.

D documents, B blocks of T tokens, M pieces (`data/packing/segments.py`).
"""

from collections.abc import Iterator

import numpy as np

from speciate.config.contracts.data import PackingOptions
from speciate.data.packing.segments import BLOCK, Ints

DOCUMENTS = 1 << 13
"""Documents that are laid out at a time."""


class Options(PackingOptions):
    """Concatenation has none."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Iterator[Ints]:
    """The pieces, int64 (M, 4), of documents of `lengths_D` tokens, their end-of-text tokens not counted."""
    stream, num_blocks = 0, int(lengths_D.sum() + len(lengths_D)) // block_length
    left = np.zeros((0, 4), np.int64)  # the pieces of a block that is not full
    for start in range(0, len(lengths_D), DOCUMENTS):
        lengths_P = lengths_D[start : start + DOCUMENTS]
        stops_P = stream + np.cumsum(lengths_P + 1)
        starts_P = stops_P - lengths_P - 1
        first_P = starts_P // block_length
        num_P = (stops_P - 1) // block_length - first_P + 1  # blocks that a document touches
        document_M = np.repeat(np.arange(len(lengths_P)), num_P)
        block_M = np.arange(len(document_M)) + np.repeat(first_P - np.cumsum(num_P) + num_P, num_P)
        place_M = np.maximum(starts_P[document_M], block_M * block_length)
        columns = (block_M, place_M - block_M * block_length, start + document_M, place_M - starts_P[document_M])
        left = np.concatenate((left, np.stack(columns, axis=1)))
        stream = int(stops_P[-1])
        full = int(np.searchsorted(left[:, BLOCK], min(stream // block_length, num_blocks)))
        yield left[:full]
        left = left[full:]
