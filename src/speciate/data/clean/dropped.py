"""Samples of what cleaning dropped, kept for reading: of each reason the documents whose ids hash lowest.

The hash makes the choice a random one that no order of reading changes: it is the same every time, bounded in memory,
and the lowest of all shards are the lowest of the whole (bottom-k sampling; Cohen and Kaplan 2007).
"""

import hashlib
import heapq
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.documents import Document

SCHEMA = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("filter", pa.string(), nullable=False),
        pa.field("note", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("characters", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
"""`filter`: the kind that dropped it, or `clean`; `characters`: of the whole text, of which `text` is the beginning."""
SAMPLES_PER_REASON = 8
MAX_CHARACTERS = 2000
"""Of a text kept."""

Row = tuple[str, str, str, str, int, str]


def sampling_rank(id_: str) -> int:
    """Where a document stands among those dropped for one reason; the lowest are kept."""
    return int.from_bytes(hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def escape_surrogates(text: str) -> str:
    """`text` with lone surrogates, which no file of UTF-8 can hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class DroppedSamples:
    """The few of each reason."""

    def __init__(self, per_reason: int = SAMPLES_PER_REASON) -> None:
        self.per_reason = per_reason
        self._heaps: dict[str, list[tuple[int, Row]]] = {}

    def add(self, document: Document, reason: str, filter_: str, note: str) -> None:
        """Keeps `document`, as it stood when it was dropped, if it is among the few."""
        heap = self._heaps.setdefault(reason, [])
        place = -sampling_rank(document.id)  # a heap gives up its smallest: the highest rank
        if len(heap) < self.per_reason or place > heap[0][0]:
            length, text = len(document.text), escape_surrogates(document.text[:MAX_CHARACTERS])
            row = (reason, filter_, escape_surrogates(note), escape_surrogates(document.id), length, text)
            (heapq.heappush if len(heap) < self.per_reason else heapq.heapreplace)(heap, (place, row))

    def table(self) -> pa.Table:
        """All samples, by reason, the lowest rank first."""
        rows = [row for _, heap in sorted(self._heaps.items()) for _, row in sorted(heap, key=lambda item: -item[0])]
        columns = [pa.array([row[index] for row in rows], field.type) for index, field in enumerate(SCHEMA)]
        return pa.Table.from_arrays(columns, schema=SCHEMA)


def write_dropped(file: pathlib.Path, samples: DroppedSamples) -> None:
    """Writes the samples to a parquet file; the same samples give the same bytes."""
    pq.write_table(samples.table(), file, compression="zstd", compression_level=3, write_statistics=False)
