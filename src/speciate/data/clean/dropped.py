"""Keep samples of what cleaning dropped: for each reason, the documents whose ids have the lowest hashes.

The hash makes the sample random but independent of the order of reading. It is the same every time, bounded in memory,
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
"""`filter` is the kind that dropped the document, or `clean`. `characters` is the length of the whole text, and `text`
its beginning."""
SAMPLES_PER_REASON = 8
MAX_CHARACTERS = 2000
"""Length to which a sample's text is cut, in characters."""

Row = tuple[str, str, str, str, int, str]


def sampling_rank(id_: str) -> int:
    """Return a document's rank among those dropped for one reason; the lowest ranks are kept."""
    return int.from_bytes(hashlib.blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def escape_surrogates(text: str) -> str:
    """Return `text` with lone surrogates, which UTF-8 cannot encode, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class DroppedSamples:
    """A few dropped documents of each reason."""

    def __init__(self, per_reason: int = SAMPLES_PER_REASON) -> None:
        self.per_reason = per_reason
        self._heaps: dict[str, list[tuple[int, Row]]] = {}

    def add(self, document: Document, reason: str, filter_: str, note: str) -> None:
        """Keep `document`, in its state when it was dropped, if its rank is among the lowest."""
        heap = self._heaps.setdefault(reason, [])
        priority = -sampling_rank(document.id)  # a heap pops its smallest item: the highest rank
        if len(heap) < self.per_reason or priority > heap[0][0]:
            length, text = len(document.text), escape_surrogates(document.text[:MAX_CHARACTERS])
            row = (reason, filter_, escape_surrogates(note), escape_surrogates(document.id), length, text)
            (heapq.heappush if len(heap) < self.per_reason else heapq.heapreplace)(heap, (priority, row))

    def table(self) -> pa.Table:
        """Return all samples, sorted by reason and then by rank."""
        rows = [row for _, heap in sorted(self._heaps.items()) for _, row in sorted(heap, key=lambda item: -item[0])]
        columns = [pa.array([row[index] for row in rows], field.type) for index, field in enumerate(SCHEMA)]
        return pa.Table.from_arrays(columns, schema=SCHEMA)


def write_dropped(file: pathlib.Path, samples: DroppedSamples) -> None:
    """Write the samples to a parquet file; equal samples give equal bytes."""
    pq.write_table(samples.table(), file, compression="zstd", compression_level=3, write_statistics=False)
