"""Concatenate and cut: documents in order, an end-of-text token after each, cut every T tokens (GPT-2's way).

block of stream position p = p // T, p over all documents end to end. Keeps every token but the tail that fills no
block, and splits many documents: the yardstick for the other packings.

D documents, B blocks of T tokens, M pieces (`data/pieces.py`).
"""

import numpy as np

from speciate.data.pieces import Ints
from speciate.kinds import Kind


class Options(Kind):
    """Concatenation has none."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Ints:
    """The pieces, int64 (M, 4), of documents of `lengths_D` tokens, their end-of-text tokens not counted."""
    stops_D = np.cumsum(lengths_D + 1)
    starts_D = stops_D - lengths_D - 1
    first_D = starts_D // block_length
    num_D = (stops_D - 1) // block_length - first_D + 1  # blocks that a document touches
    document_M = np.repeat(np.arange(len(lengths_D)), num_D)
    block_M = np.arange(len(document_M)) + np.repeat(first_D - np.cumsum(num_D) + num_D, num_D)
    place_M = np.maximum(starts_D[document_M], block_M * block_length)
    columns = (block_M, place_M - block_M * block_length, document_M, place_M - starts_D[document_M])
    num_blocks = int(stops_D[-1]) // block_length if len(stops_D) else 0
    return np.stack(columns, axis=1)[: np.searchsorted(block_M, num_blocks)]
