"""Read the records of one file row by row in bounded memory: jsonl and txt, plain or compressed, and parquet.

Arrow's streams read them all. They accept several compressed frames in one file, and report a truncated stream, where
zstandard's own reader stops silently.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.fetch.archive import decode_utf8
from speciate.data.fetch.records import BadRecord, RecordParser, parse_json_line
from speciate.data.parquet_errors import explain_parquet_errors

MAX_LINE_BYTES = 128 << 20
"""Longest line, and largest txt file, decompressed."""
BATCH_ROWS = 64
"""Parquet rows decoded at once."""

LazyRecord = Callable[[], dict[str, Any] | BadRecord]
"""A function that decodes one record; it is not called for records of another shard."""


def read_rows(path: str, records: RecordParser, where: str) -> Iterator[tuple[int, LazyRecord]]:
    """Yield (row, record) for each record of one file, with rows counted from 1; a txt file's only record is row 0.

    Args:
        path: a file with one of the suffixes in `FILE_READERS`.
        records: the parser that the records go to; of parquet only its columns are decoded.
        where: the source and the file, for messages.

    Raises:
        ValueError: the file is truncated or corrupt, a line is too long, or parquet lacks a column; the message names
            `where`.
    """
    suffix = next(suffix for suffix in FILE_READERS if path.endswith(suffix))
    with explain_parquet_errors(f"{where} is damaged or cut off"):
        yield from FILE_READERS[suffix](path, records, where)


def _read_jsonl(path: str, records: RecordParser, where: str) -> Iterator[tuple[int, LazyRecord]]:
    with _open_decompressed(path) as stream:
        for row, line in enumerate(_read_lines(stream, where), start=1):
            if line.strip():
                yield row, functools.partial(parse_json_line, line)


def _read_text(path: str, records: RecordParser, where: str) -> Iterator[tuple[int, LazyRecord]]:
    with _open_decompressed(path) as stream:
        data = stream.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        raise ValueError(f"{where} holds more than {MAX_LINE_BYTES} bytes of text, the limit")

    def record() -> dict[str, Any] | BadRecord:
        try:
            return {"text": decode_utf8(data, "")}
        except ValueError as error:
            return BadRecord("not_utf8", str(error).strip())

    yield 0, record


def _read_parquet(path: str, records: RecordParser, where: str) -> Iterator[tuple[int, LazyRecord]]:
    # without pre-buffering, a row group is read page by page, so a row group of a gigabyte does not take a gigabyte
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as parquet:
        records.check_columns(parquet.schema_arrow.names, where)
        row = 0
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(records.columns), use_threads=False):
            for index in range(batch.num_rows):
                row += 1
                yield row, functools.partial(_parquet_record, batch, index)


def _parquet_record(batch: pa.RecordBatch, index: int) -> dict[str, Any] | BadRecord:
    try:
        return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        return BadRecord("not_utf8", f"is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}")


FILE_READERS: dict[str, Callable[[str, RecordParser, str], Iterator[tuple[int, LazyRecord]]]] = {
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".jsonl.zst": _read_jsonl,
    ".txt": _read_text,
    ".txt.gz": _read_text,
    ".txt.zst": _read_text,
    ".parquet": _read_parquet,
}
"""Suffix of a file -> the function that reads it."""


def _read_lines(stream: IO[bytes], where: str) -> Iterator[bytes]:
    for row in range(1, 1 << 62):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{where}: row {row} is longer than {MAX_LINE_BYTES} bytes, the limit of a line")
        if not line:
            return
        yield line


@contextlib.contextmanager
def _open_decompressed(path: str) -> Iterator[IO[bytes]]:
    compression = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
    with pa.input_stream(path, compression=compression) as stream:
        yield io.BufferedReader(stream, 1 << 16)
