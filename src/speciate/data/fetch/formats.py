"""The records of one file, row by row, in bounded memory: jsonl and txt, plain or compressed, and parquet.

Arrow's streams read all of them: they take several compressed frames in one file, and say so when a stream is cut off
(zstandard's own reader ends there in silence).
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.fetch.archive import utf8
from speciate.data.fetch.records import BadRecord, Records, parse

LINE_BYTES = 128 << 20
"""Longest line, and largest txt file, decompressed."""
BATCH_ROWS = 64
"""Rows of parquet decoded at once."""

Record = Callable[[], dict[str, Any] | BadRecord]
"""Reads one record; not called for a record of another shard."""


def rows(path: str, records: Records, where: str) -> Iterator[tuple[int, Record]]:
    """The records of one file with their rows, counted from 1; a txt file's only one is row 0.

    Args:
        path: a file with one of the suffixes in `FORMATS`.
        records: what will read them; parquet decodes only its columns.
        where: source and file, for messages.

    Raises:
        ValueError: cut off, corrupt, a line too long, or (parquet) a column that is not there; names `where`.
    """
    suffix = next(suffix for suffix in FORMATS if path.endswith(suffix))
    with _broken(where):
        yield from FORMATS[suffix](path, records, where)


def _jsonl(path: str, records: Records, where: str) -> Iterator[tuple[int, Record]]:
    with _opened(path) as stream:
        for row, line in enumerate(_lines(stream, where), start=1):
            if line.strip():
                yield row, functools.partial(parse, line)


def _text(path: str, records: Records, where: str) -> Iterator[tuple[int, Record]]:
    with _opened(path) as stream:
        data = stream.read(LINE_BYTES + 1)
    if len(data) > LINE_BYTES:
        raise ValueError(f"{where} holds more than {LINE_BYTES} bytes of text, the limit")

    def record() -> dict[str, Any] | BadRecord:
        try:
            return {"text": utf8(data, "")}
        except ValueError as error:
            return BadRecord("not_utf8", str(error).strip())

    yield 0, record


def _parquet(path: str, records: Records, where: str) -> Iterator[tuple[int, Record]]:
    # without pre-buffering a row group is read page by page, so that one of a gigabyte takes no gigabyte
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as parquet:
        records.check(parquet.schema_arrow.names, where)
        row = 0
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(records.names), use_threads=False):
            for index in range(batch.num_rows):
                row += 1
                yield row, functools.partial(_row, batch, index)


def _row(batch: pa.RecordBatch, index: int) -> dict[str, Any] | BadRecord:
    try:
        return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        return BadRecord("not_utf8", f"is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}")


FORMATS: dict[str, Callable[[str, Records, str], Iterator[tuple[int, Record]]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".jsonl.zst": _jsonl,
    ".txt": _text,
    ".txt.gz": _text,
    ".txt.zst": _text,
    ".parquet": _parquet,
}
"""Suffix of a file -> what reads it."""


def _lines(stream: IO[bytes], where: str) -> Iterator[bytes]:
    for row in range(1, 1 << 62):
        line = stream.readline(LINE_BYTES + 1)
        if len(line) > LINE_BYTES:
            raise ValueError(f"{where}: row {row} is longer than {LINE_BYTES} bytes, the limit of a line")
        if not line:
            return
        yield line


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    compression = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
    with pa.input_stream(path, compression=compression) as stream:
        yield io.BufferedReader(stream, 1 << 16)


@contextlib.contextmanager
def _broken(where: str) -> Iterator[None]:
    """Arrow's complaints about a file's content, as one line; the file system's own trouble stays an OSError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{where} is damaged or cut off: {first}") from None
