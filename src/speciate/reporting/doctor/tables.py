"""Tables of the doctor's page: those of the Judgement in plain words, the rows that matter most first.

All rows stand in the parquet and csv files; a page would be unreadable with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from speciate.analysis.routing.judgement import TABLES
from speciate.reporting import formats

MOST_ROWS = 200
TITLES = {
    "layers": "Layers",
    "experts": "Experts",
    "lifts": "Experts and labels",
    "pairs": "Pairs of experts",
    "tokens": "Experts and tokens",
    "types": "Experts and types of token",
    "positions": "Experts and positions",
    "agreement": "Agreement of the two records",
    "moves": "Experts that moved between the two records",
    "flips": "Choices that differ, by margin",
    "knock_out": "Knock-outs",
}
"""Table -> its title, in the order of the page."""
KNOCK_OUT = {
    "path": "module path",
    "layer": "number of the layer",
    "expert": "number of the expert",
    "label": "the label; empty: all texts together",
    "cost_nats": "nats per token that the model loses without the expert",
    "cost_low_nats": "lower bound over documents",
    "cost_high_nats": "upper bound",
    "control_nats": "nats per token lost when as many choices are taken from random tokens",
    "tokens": "predicted tokens",
    "load": "the expert's share of the choices",
    "lift": "its share for texts of the label, over the mean of the labels' shares",
    "matched_expert": "the expert of the layer that was knocked out too, and has the nearest load; -1: none",
    "matched_nats": "the cost of knocking that one out",
}
"""Column of the table of knock-outs -> its meaning."""
INTERVAL_ENDS = ("_low", "_high")


@dataclass(frozen=True)
class Column:
    """One column of a table on the page."""

    name: str
    title: str
    meaning: str
    numeric: bool


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and the value by which it is sorted."""

    text: str
    value: str


@dataclass(frozen=True)
class SortedTable:
    """A table that readers can sort."""

    name: str
    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


def page_tables(tables: Mapping[str, pd.DataFrame]) -> list[SortedTable]:
    """Return the tables that have rows, in the order of the page."""
    return [_table(name, tables[name]) for name in TITLES if name in tables and len(tables[name])]


def _table(name: str, rows: pd.DataFrame) -> SortedTable:
    shown, order = _most_important(name, rows)
    note = f"{formats.format_count(len(rows))} rows" if len(rows) > 1 else "1 row"
    if len(rows) > len(shown):
        note = f"{formats.format_count(len(shown))} of {note}: {order}"
    meanings = KNOCK_OUT if name == "knock_out" else TABLES.get(name, {})
    columns = [
        Column(str(column), formats.plain_name(str(column)), meanings.get(str(column), ""), _is_number(rows[column]))
        for column in _columns(name, rows)
    ]
    cells = [
        [_cell(column.name, value) for column, value in zip(columns, row, strict=True)]
        for row in shown[[column.name for column in columns]].itertuples(index=False, name=None)
    ]
    return SortedTable(name, TITLES[name], note, columns, cells)


def _columns(name: str, rows: pd.DataFrame) -> list[str]:
    """Return the columns that say something: not those without a value, nor one that repeats the layer."""
    dropped = {"sentence"}
    if "phase" in rows and rows["phase"].nunique() < 2:
        dropped.add("phase")
    if "path" in rows and "layer" in rows and not rows.drop_duplicates("path")["layer"].duplicated().any():
        dropped.add("path" if (rows["layer"] >= 0).all() else "layer")
    return [str(column) for column in rows if column not in dropped and rows[column].notna().any()]


def _is_number(values: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def _most_important(name: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the first rows in the order of what matters, and what that order is."""
    if len(rows) <= MOST_ROWS:
        return rows, ""
    if name in ("lifts", "types") and "lift" in rows:
        distance = np.abs(np.log2(rows["lift"].clip(1e-6, 1e6)))
        first = rows["q_value"].fillna(1).ge(0.05) if "q_value" in rows else pd.Series(False, index=rows.index)
        order = rows.assign(_first=first, _size=-distance).sort_values(["_first", "_size"], kind="stable")
        return order.drop(columns=["_first", "_size"]).head(MOST_ROWS), "significant ones first, by size of the lift"
    if name == "pairs":
        keys = ["q_value"] if "q_value" in rows else ["expected"]
        return rows.sort_values(keys, kind="stable").head(MOST_ROWS), "the least likely by chance"
    if name == "tokens":
        return rows.sort_values("lift", ascending=False, kind="stable").head(MOST_ROWS), "the largest lifts"
    if name == "experts":
        return rows.sort_values("share", ascending=False, kind="stable").head(MOST_ROWS), "the largest shares"
    if name == "knock_out":
        return rows.sort_values("cost_nats", ascending=False, kind="stable").head(MOST_ROWS), "the costliest"
    return rows.head(MOST_ROWS), "the first"


def _cell(name: str, value: object) -> Cell:
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no", str(int(value)))
    if isinstance(value, int | np.integer):
        return Cell(
            formats.format_count(float(value)) if abs(int(value)) >= 10_000 else str(value).replace("-", "−"),
            str(value),
        )
    if isinstance(value, float | np.floating):
        return Cell(_number(name, float(value)), "" if np.isnan(value) else repr(float(value)))
    return Cell(formats.DASH if formats.is_missing(value) else str(value), str(value))


def _number(name: str, value: float) -> str:
    if not np.isfinite(value):
        return formats.format_number(value)
    if name.endswith(("p_value", "q_value", "_p", "_q")):
        return formats.format_p_value(value)
    if "share" in name and 0 <= value <= 1:
        return formats.format_percent(value)
    if value == round(value) and abs(value) < 1e9:
        return formats.format_count(value) if abs(value) >= 10_000 else formats.format_number(value, 0)
    return formats.format_number(value, 2 if abs(value) >= 10 else 4 if "nats" in name else 3)
