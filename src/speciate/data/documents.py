"""Documents: the one record of the data stages, and the parquet file that carries them from stage to stage.

Files are written with every choice fixed (order, row groups, compression), so equal documents give equal bytes; they
are read one row group at a time, so a domain need not fit into memory.
"""

import contextlib
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
class Shard:
    """Which part of a domain a job works on: part `index` (from 0) of `count`, written `index-of-count`."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that `text` names. Raises ValueError where it is none."""
        index, _, count = text.partition("-of-")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"--shard: {text!r} is no shard; the first of eight is 0-of-8")
        return cls(int(index), int(count))


@dataclass(frozen=True, slots=True)
class Passage:
    """A text as its source gives it, before it belongs to a domain."""

    id: str
    """Unique within the source."""
    group: str
    """What must not straddle a split (an article, a template); the id itself where there is nothing of the kind."""
    text: str | None
    """None where the record has none."""
    fault: str | None = None
    """Why a record without text has none, as a reason of its drop; None: its text is null."""


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
            file,
            SCHEMA,
            compression="zstd",
            compression_level=3,
            use_dictionary=["domain"],
            write_statistics=False,
            write_page_checksum=True,  # zstd's own are left out, and a flipped bit would be another text
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


@contextlib.contextmanager
def damage(message: str) -> Iterator[None]:
    """Arrow's complaints about what a file holds become a ValueError, one line; a full disk stays an OSError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{message}: {next(iter(str(error).splitlines()), type(error).__name__)}") from None


def num_documents(file: pathlib.Path) -> int:
    """How many documents a file has. Raises ValueError naming it where it is no documents file."""
    with damage(f"{file}: is no documents file"):
        return int(pq.read_metadata(file).num_rows)


def read_tables(file: pathlib.Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a documents file, in order; only `columns` where given.

    Raises:
        ValueError: not a documents file, or damaged; the message names it.
    """
    with damage(f"{file}: is no documents file"), pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        if parquet.schema_arrow.names != SCHEMA.names:
            raise ValueError(f"{file}: has columns {parquet.schema_arrow.names}, not {SCHEMA.names}")
        if not parquet.schema_arrow.equals(SCHEMA):
            raise ValueError(f"{file}: has columns that are no text, or may be null")
        for index in range(parquet.num_row_groups):
            yield parquet.read_row_group(index, columns=columns)


def read_documents(file: pathlib.Path) -> Iterator[Document]:
    """The documents of a file, in order. Raises ValueError as `read_tables` does."""
    for table in read_tables(file):
        for row in zip(*(table.column(name).to_pylist() for name in SCHEMA.names), strict=True):
            yield Document(*row)
