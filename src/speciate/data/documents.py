"""Documents: the one record of the data stages, and the parquet file that carries them from stage to stage.

Files are written with every choice fixed (order, row groups, compression), so equal documents give equal bytes; they
are read one row group at a time, so a domain need not fit into memory.
"""

import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("id", "domain", "group", "text")])
ROW_GROUP_BYTES = 4 << 20
ROW_GROUP_DOCUMENTS = 4096


@dataclass(frozen=True, slots=True)
class Passage:
    """A text as its source gives it, before it belongs to a domain."""

    id: str
    """Unique within the source."""
    group: str
    """What must not straddle a split (an article, a template); the id itself where there is nothing of the kind."""
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text of one domain."""

    id: str
    """Unique within the domain."""
    domain: str
    group: str
    text: str


class Writer:
    """Writes documents to a parquet file in the order they come, as a context manager."""

    def __init__(self, file: pathlib.Path) -> None:
        self._parquet = pq.ParquetWriter(
            file, SCHEMA, compression="zstd", compression_level=3, use_dictionary=["domain"], write_statistics=False
        )
        self._rows: list[Document] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._parquet.close()

    def write(self, document: Document) -> None:
        """Adds one document."""
        self._rows.append(document)
        self._bytes += len(document.text)
        if self._bytes >= ROW_GROUP_BYTES or len(self._rows) >= ROW_GROUP_DOCUMENTS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns = [pa.array([getattr(row, field.name) for row in self._rows], field.type) for field in SCHEMA]
            self._parquet.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
        self._rows, self._bytes = [], 0


def write_documents(file: pathlib.Path, documents: Iterable[Document]) -> int:
    """Writes `documents` to `file`; returns how many there were."""
    count = 0
    with Writer(file) as writer:
        for document in documents:
            writer.write(document)
            count += 1
    return count


def read_tables(file: pathlib.Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a documents file, in order; only `columns` where given.

    Raises:
        ValueError: not a documents file; the message names it.
    """
    try:
        with pq.ParquetFile(file) as parquet:
            if parquet.schema_arrow.names != SCHEMA.names:
                raise ValueError(f"{file}: has columns {parquet.schema_arrow.names}, not {SCHEMA.names}")
            for index in range(parquet.num_row_groups):
                yield parquet.read_row_group(index, columns=columns)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file}: is no documents file: {str(error).splitlines()[0]}") from None


def read_documents(file: pathlib.Path) -> Iterator[Document]:
    """The documents of a file, in order. Raises ValueError as `read_tables` does."""
    for table in read_tables(file):
        for row in zip(*(table.column(name).to_pylist() for name in SCHEMA.names), strict=True):
            yield Document(*row)
