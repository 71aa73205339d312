"""Read the records of one file row by row in bounded memory: jsonl and text, plain or compressed, and parquet."""

import functools
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.fetch.decompress import COMPRESSIONS, open_compressed
from speciate.data.fetch.encodings import BYTE_ORDER_MARK, decode_utf8, other_encoding
from speciate.data.fetch.records import BadRecord, RecordParser, parse_json_line
from speciate.data.reading_errors import ReadingError, explain_errors, first_line

MAX_LINE_BYTES = 128 << 20
"""Longest line, and largest txt file, decompressed."""
BATCH_ROWS = 64
"""Parquet rows decoded at once."""
HEAD_BYTES = 1 << 12
"""How much of a jsonl file tells its encoding."""
SUFFIXES = {".jsonl": "jsonl", ".txt": "text", ".parquet": "parquet"}
"""Suffix, without that of a compression -> the format that it tells."""

LazyRecord = Callable[[], dict[str, Any] | BadRecord]
"""A function that decodes one record; it is not called for records of another shard."""
Rows = Iterator[tuple[int, LazyRecord]]


def format_of(path: str) -> str | None:
    """Return the format that a file's name tells; None where it tells none."""
    compression = next((suffix for suffix in COMPRESSIONS if path.endswith(suffix)), "")
    stem = path.removesuffix(compression)
    found = next((name for suffix, name in SUFFIXES.items() if stem.endswith(suffix)), None)
    return None if compression and found == "parquet" else found


def read_rows(path: str, records: RecordParser, where: str, *, file_format: str | None = None) -> Rows:
    """Yield (row, record) for each record of one file, with rows counted from 1; a text's only record is row 0.

    Args:
        path: the file; it is decompressed if its name ends in a suffix of `COMPRESSIONS`.
        records: the parser that the records go to; of parquet only its columns are decoded.
        where: the source and the file, for messages.
        file_format: `jsonl`, `text` or `parquet`; by default, the one that the file's name tells.

    Raises:
        ReadingError: the file is truncated or corrupt, a line is too long, the file needs more than its reader has, it
            is not UTF-8 but UTF-16, or parquet lacks a column or has it twice; the message names `where`.
    """
    file_format = file_format or format_of(path)
    assert file_format is not None, path
    with explain_errors(where):
        if file_format == "parquet":
            yield from _read_parquet(path, records, where)
            return
        suffix = next((suffix for suffix in COMPRESSIONS if path.endswith(suffix)), None)
        with open(path, "rb") as file:
            stream = file if suffix is None else open_compressed(file, suffix, where)
            yield from _read_jsonl(stream, where) if file_format == "jsonl" else _read_text(stream, where)


def _read_jsonl(stream: IO[bytes], where: str) -> Rows:
    for row, line in enumerate(_read_lines(stream, where), start=1):
        if row == 1 and (problem := other_encoding(line[:HEAD_BYTES])):
            raise ReadingError(f"{where} {problem}")
        if line.removeprefix(BYTE_ORDER_MARK).strip():
            yield row, functools.partial(parse_json_line, line)


def _read_text(stream: IO[bytes], where: str) -> Rows:
    data = stream.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        raise ReadingError(f"{where} holds more than {MAX_LINE_BYTES} bytes of text, the limit")

    def record() -> dict[str, Any] | BadRecord:
        try:
            return {"text": decode_utf8(data, "")}
        except ReadingError as error:
            return BadRecord("not_utf8", str(error).strip())

    yield 0, record


def _read_parquet(path: str, records: RecordParser, where: str) -> Rows:
    # without pre-buffering, a row group is read page by page, so a row group of a gigabyte does not take a gigabyte
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True) as parquet:
        records.check_columns(parquet.schema_arrow.names, where)
        row = 0
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=list(records.columns), use_threads=False):
            for index in range(batch.num_rows):
                row += 1
                yield row, functools.partial(_parquet_record, batch, index, records.columns)
        if row != parquet.metadata.num_rows:
            raise ReadingError(f"{where} is damaged: it holds {row} rows, not the {parquet.metadata.num_rows} it says")


def _parquet_record(batch: pa.RecordBatch, index: int, columns: tuple[str, ...]) -> dict[str, Any] | BadRecord:
    record = {}
    for name in columns:
        try:
            record[name] = batch.column(name)[index].as_py()
        except UnicodeDecodeError as error:
            return BadRecord("not_utf8", f"is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}")
        except Exception as error:  # dates after the year 9999, structs with one name twice, and what else Arrow holds
            return BadRecord("unreadable", f"column '{name}' cannot be read: {first_line(error)}")
    return record


def _read_lines(stream: IO[bytes], where: str) -> Iterator[bytes]:
    for row in range(1, 1 << 62):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise ReadingError(f"{where}: row {row} is longer than {MAX_LINE_BYTES} bytes, the limit of a line")
        if not line:
            return
        yield line
