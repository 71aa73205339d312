"""Documents of a domain, and the parquet files that carry them from stage to stage.

Every choice of the writer is fixed (order, row groups, compression), so equal documents give equal bytes. Files are
read one row group at a time, so a domain need not fit into memory.
"""

import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.parquet_errors import explain_parquet_errors

SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", "domain", "group", "text")])
ROW_GROUP_BYTES = 4 << 20
ROW_GROUP_DOCUMENTS = 4096


@dataclass(frozen=True, slots=True)
class Document:
    """One text of one domain."""

    id: str
    """The document's name, unique within the domain."""
    domain: str
    group: str
    """Documents of one group stay in one split."""
    text: str


class DocumentWriter:
    """Write documents to a parquet file in the order in which they come; a context manager."""

    def __init__(self, file: pathlib.Path) -> None:
        self._parquet = pq.ParquetWriter(
            file,
            SCHEMA,
            compression="zstd",
            compression_level=3,
            use_dictionary=["domain"],
            write_statistics=False,
            write_page_checksum=True,  # Arrow leaves out zstd's own checksum; a flipped bit would pass as another text
        )
        self._rows: list[Document] = []
        self._bytes = 0
        self.num_row_groups = 0
        """How many row groups are written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.end_row_group()
        self._parquet.close()

    def write(self, document: Document) -> None:
        self._rows.append(document)
        self._bytes += len(document.text)
        if self._bytes >= ROW_GROUP_BYTES or len(self._rows) >= ROW_GROUP_DOCUMENTS:
            self.end_row_group()

    def end_row_group(self) -> None:
        """Write the documents that are waiting, so that the next one starts a new row group."""
        if self._rows:
            self.num_row_groups += 1
            columns = [pa.array([getattr(row, field.name) for row in self._rows], field.type) for field in SCHEMA]
            self._parquet.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        self._rows, self._bytes = [], 0


def write_documents(file: pathlib.Path, documents: Iterable[Document]) -> int:
    """Write `documents` to `file`, and return how many there were."""
    count = 0
    with DocumentWriter(file) as writer:
        for document in documents:
            writer.write(document)
            count += 1
    return count


def num_documents(file: pathlib.Path) -> int:
    """Return how many documents a file holds. Raise ValueError, naming the file, if it is not a documents file."""
    with explain_parquet_errors(f"{file}: is not a documents file"):
        return int(pq.read_metadata(file).num_rows)


def read_tables(
    file: pathlib.Path, columns: list[str] | None = None, *, start: int = 0, stop: int | None = None
) -> Iterator[pa.Table]:
    """Yield the row groups of a documents file in order, with only `columns` if they are given.

    Args:
        file: the documents file.
        columns: the columns to read; None reads all.
        start: index of the first row group.
        stop: index after the last row group; None reads to the end.

    Raises:
        ValueError: the file is damaged or is not a documents file; the message names it.
    """
    with (
        explain_parquet_errors(f"{file}: is not a documents file"),
        pq.ParquetFile(file, page_checksum_verification=True) as parquet,
    ):
        if parquet.schema_arrow.names != SCHEMA.names:
            raise ValueError(f"{file}: has columns {parquet.schema_arrow.names}, not {SCHEMA.names}")
        if not parquet.schema_arrow.equals(SCHEMA):
            raise ValueError(f"{file}: has columns that are not text or may be null")
        if not 0 <= start <= (parquet.num_row_groups if stop is None else stop) <= parquet.num_row_groups:
            raise ValueError(f"{file}: has {parquet.num_row_groups} row groups, not {stop}")
        for index in range(start, parquet.num_row_groups if stop is None else stop):
            yield parquet.read_row_group(index, columns=columns)


def read_documents(file: pathlib.Path, *, start: int = 0, stop: int | None = None) -> Iterator[Document]:
    """Yield the documents of a file, or of some of its row groups, in order. Raise ValueError as `read_tables` does."""
    for table in read_tables(file, start=start, stop=stop):
        for row in zip(*(table.column(name).to_pylist() for name in SCHEMA.names), strict=True):
            yield Document(*row)
