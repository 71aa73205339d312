"""Count what a packing did to the documents and their tokens."""

import numpy as np

from speciate.data.packing.segments import BLOCK, DOCUMENT, Ints, segment_lengths


class PackingSummary:
    """Counts of one packing; they add up over splits, shards and domains.

    documents: number of documents.
    tokens_in: their tokens, with one end-of-text token each; equals tokens_packed + tokens_truncated + tokens_dropped.
    tokens_packed: tokens in blocks.
    tokens_truncated: lost tokens of documents_cut, the documents that are partly in blocks.
    tokens_dropped: tokens of documents_dropped, the documents that are in no block.
    documents_split: documents in more than one segment.
    short_documents_split: the documents_split that would fit into one block.
    pieces: number of segments.
    blocks: number of blocks.
    """

    def __init__(self, lengths_D: Ints, block_length: int) -> None:
        self.lengths_D = lengths_D
        self.block_length = block_length
        self.segments = self.blocks = 0
        self._lost_D = lengths_D + 1
        self._segments_D = np.zeros(len(lengths_D), np.uint8)  # 2 means two or more

    def add(self, segments_M4: Ints) -> None:
        """Count one chunk of segments, which must consist of whole blocks."""
        if not len(segments_M4):
            return
        documents_M = segments_M4[:, DOCUMENT]
        np.subtract.at(
            self._lost_D,
            documents_M,
            segment_lengths(segments_M4 - (segments_M4[0, BLOCK], 0, 0, 0), self.block_length),
        )
        documents, counts = np.unique(documents_M, return_counts=True)
        self._segments_D[documents] = np.minimum(self._segments_D[documents] + counts, 2)
        self.segments += len(segments_M4)
        self.blocks = int(segments_M4[-1, BLOCK]) + 1

    def counts(self) -> dict[str, int]:
        """Return the counts by name."""
        lost_D, none_D, split_D = self._lost_D, self._segments_D == 0, self._segments_D > 1
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
            "pieces": self.segments,
            "blocks": self.blocks,
        }
