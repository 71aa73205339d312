"""Store passages as a parquet file: what fetching from a hub leaves behind, with its origin as metadata.

Files are written and read one row group at a time, with every choice fixed, so equal passages give equal bytes.
"""

import pathlib
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.parquet_errors import explain_parquet_errors
from speciate.data.passage import Passage

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("group", pa.string()),
        pa.field("text", pa.string()),
        pa.field("fault", pa.string()),
    ]
)
ROW_GROUP_BYTES = 4 << 20
ROW_GROUP_PASSAGES = 4096


def write_passages(file: pathlib.Path, passages: Iterable[Passage], origin: Mapping[str, str]) -> int:
    """Write `passages` to `file` as they come, with `origin` as the schema's metadata; return how many there were."""
    schema = SCHEMA.with_metadata(dict(sorted(origin.items())))
    count, size = 0, 0
    pending: list[Passage] = []

    def flush() -> None:
        columns = [pa.array([getattr(passage, field.name) for passage in pending], field.type) for field in schema]
        parquet.write_table(pa.Table.from_arrays(columns, schema=schema))
        pending.clear()

    with pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=["fault"],
        write_statistics=False,
        write_page_checksum=True,
    ) as parquet:
        for passage in passages:
            pending.append(passage)
            count += 1
            size += len(passage.text or "")
            if size >= ROW_GROUP_BYTES or len(pending) >= ROW_GROUP_PASSAGES:
                flush()
                size = 0
        if pending:
            flush()
    return count


def read_passages(file: pathlib.Path) -> Iterator[Passage]:
    """Yield the passages of `file` in order. Raise ValueError, naming the file, if it is damaged or of another kind."""
    with (
        explain_parquet_errors(f"{file}: holds no passages"),
        pq.ParquetFile(file, page_checksum_verification=True) as parquet,
    ):
        if not parquet.schema_arrow.equals(SCHEMA):
            raise ValueError(f"{file}: has columns {parquet.schema_arrow.names}, not {SCHEMA.names}")
        for index in range(parquet.num_row_groups):
            table = parquet.read_row_group(index)
            for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
                yield Passage(*row)


def read_origin(file: pathlib.Path) -> dict[str, str]:
    """Return where the passages of `file` came from: the `origin` that `write_passages` stored."""
    metadata: dict[bytes, bytes] = pq.read_schema(file).metadata or {}
    return {name.decode(): value.decode() for name, value in metadata.items() if not name.startswith(b"ARROW")}
