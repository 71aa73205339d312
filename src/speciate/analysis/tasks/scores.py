"""The file of one run's scores on one task: the questions with their scores, or the reason why there are none."""

import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from speciate.analysis import tables
from speciate.config.contracts.evaluation import SCORES

SCORED = "scores"
"""The table of one run's scores on one task; analysis/tables.py has its columns."""
REASON = b"reason"
"""Key of the parquet file's metadata under which the reason is kept."""
QUESTION = ["metric", "part", "item", "length", "depth"]
"""The columns that tell a row of scores from every other."""


def check_scores(rows: pd.DataFrame, origin: str) -> pd.DataFrame:
    """Return the rows with the columns of `SCORES`, in its order and types.

    Args:
        rows: what a task returned.
        origin: the task's module, for messages.

    Raises:
        ValueError: a column is missing, unknown or of another type, a number is not one, or a question occurs twice.
    """
    missing, unknown = ([*set(one) - set(other)] for one, other in ((SCORES, rows.columns), (rows.columns, SCORES)))
    for what, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            raise ValueError(f"{origin}: its table {what} column {', '.join(sorted(map(str, names)))}")
    for name, kind in SCORES.items():
        column = rows[name]
        fits = {
            "str": all(isinstance(value, str) for value in column),
            "int64": pd.api.types.is_integer_dtype(column),
            "float64": pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column),
        }
        if not fits[kind] and len(rows):
            raise ValueError(f"{origin}: its column {name} is {column.dtype}, not {kind}")
    rows = tables.conform(SCORED, rows)
    bounds = {
        "value": np.isfinite(rows["value"]),
        "weight": np.isfinite(rows["weight"]) & (rows["weight"] > 0),
        "length": rows["length"] >= -1,
        "depth": rows["depth"].isna() | rows["depth"].between(0, 1),
        "metric": rows["metric"] != "",
    }
    for name, holds in bounds.items():
        if not holds.all():
            first = rows[~holds].iloc[0]
            raise ValueError(f"{origin}: question {first['item']!r} has the {name} {first[name]}")
    twice = rows[rows.duplicated(QUESTION)]
    if len(twice):
        raise ValueError(f"{origin}: question {twice['item'].iloc[0]!r} occurs twice")
    return rows


def write_scores(rows: pd.DataFrame, reason: str, file: pathlib.Path) -> None:
    """Write one run's scores on one task, with the reason in the file's metadata where there are none."""
    tables.write_parquet(rows, SCORED, file)
    if reason:
        table = pyarrow.parquet.read_table(file).replace_schema_metadata({REASON: reason.encode()})
        pyarrow.parquet.write_table(table, file, compression="zstd")


def read_scores(file: pathlib.Path) -> tuple[pd.DataFrame, str]:
    """Read one run's scores on one task, and the reason why there are none; it is empty where there are some.

    Raises:
        ValueError: the file is no table of scores; names it.
    """
    try:
        metadata = pyarrow.parquet.read_schema(file).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{file}: cannot be read as a table: {' '.join(str(error).split())}") from None
    return tables.read_table(file, SCORED), metadata.get(REASON, b"").decode()
