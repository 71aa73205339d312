"""The ids of a shard's signed documents, which are read only to name a document in a message."""

import pathlib

import pyarrow.parquet as pq

from speciate.data.documents import SCHEMA, read_tables
from speciate.data.parquet_errors import explain_parquet_errors

IDS_FILE = "ids.parquet"


def write_ids(documents: pathlib.Path, target: pathlib.Path) -> None:
    """Write the ids of a documents file to `target`, in its order. Raise ValueError as `read_tables` does."""
    schema = SCHEMA.empty_table().select(["id"]).schema
    with pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=False, write_statistics=False) as parquet:
        for table in read_tables(documents, ["id"]):
            parquet.write_table(table)


def read_id(file: pathlib.Path, row: int) -> str:
    """Return the id of the document in one row. Raise ValueError, naming the file, if it is damaged."""
    with explain_parquet_errors(f"{file}: is not a file of ids"), pq.ParquetFile(file) as parquet:
        for index in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(index).num_rows
            if row < rows:
                return str(parquet.read_row_group(index).column("id")[row].as_py())
            row -= rows
    raise ValueError(f"{file}: holds fewer ids than there are documents")
