"""Read a table of counts: how often each expert was chosen, for each label and layer.

Long: the columns layer, expert, count, and maybe label. Wide: the columns layer, maybe label, and one for each expert
(`0`, `1`, ... or `expert_0`, `expert_1`, ...). Further columns, such as `model`, tell several records apart: the user
selects one.
"""

import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.counting import choices_of_counts, note_counts_only, undo_multiples
from speciate.traces.lines import csv_header

SUMMARY = "A table of counts, as papers publish them: label x layer x expert"
FILES = "`*.csv`"
CONTENTS = Contents(labels=True)
LOOKS_FOR = "a csv whose header has `layer`, `expert` and `count`, or `layer` and a column for each expert"

COUNTS = ("count", "counts", "tokens")
LABELS = ("label", "domain")
WIDE = re.compile(r"(?:expert[_ ]?|e)?(\d+)", re.IGNORECASE)


def matches(path: pathlib.Path) -> bool:
    header = csv_header(path)
    if header is None or "layer" not in header:
        return False
    is_long = "expert" in header and any(name in header for name in COUNTS)
    return is_long or len(_wide_columns(header)) > 1


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    builder.has_documents = False
    note_counts_only(builder)
    table = pd.concat([_long(path, options) for path in paths], ignore_index=True)
    where = ", ".join(map(str, paths))
    twice = table.duplicated(["layer", "label", "expert"])
    if twice.any():
        row = table[twice].iloc[0]
        others = sorted(set(table.columns) - {"layer", "label", "expert", "count", "path"})
        raise ValueError(
            f"{row['path']}: layer {row['layer']}, label {row['label']!r}, expert {row['expert']} is there twice"
            + (f"; select one of {', '.join(others)}" if others else "; files of several ranks must be added up first")
        )
    table["count"] = undo_multiples(table["count"].to_numpy(), builder, options, where)
    num_experts = _num_experts(table, builder, options, where)
    num_chosen = choices_of_counts(_told_choices(table), builder, options, where)
    for (layer, label), part in table.groupby(["layer", "label"], sort=False):
        count_S = np.zeros(num_experts, dtype=np.int64)
        count_S[part["expert"].to_numpy()] = part["count"].to_numpy()
        row = builder.row(label or "all texts", label=label, phase=options.phase)
        shape = SelectorShape(f"layer {layer}", int(layer), num_experts, num_chosen, ordered=False)
        builder.add_counts(shape, row, count_S)


def _long(path: pathlib.Path, options: ReadOptions) -> pd.DataFrame:
    """Return the rows of a file that the user selects: layer, label, expert, count, path, and what else it has."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError) as error:
        raise ValueError(f"{path}: is not a csv: {' '.join(str(error).split())}") from None
    table.columns = [name.strip() for name in table.columns]
    table.index += 2  # the line of each row, for messages
    if not len(table):
        raise ValueError(f"{path}: has no rows")
    wide = _wide_columns(list(table.columns))
    count = next((name for name in COUNTS if name in table.columns), None)
    table = _selected(table, path, options, {*wide, "layer", "expert", *COUNTS})
    label = options.label_column or next((name for name in LABELS if name in table.columns), None)
    if label is not None and label not in table.columns:
        raise ValueError(f"{path}: has no column {label!r} for the label; it has {', '.join(table.columns)}")
    table["label"] = "" if label is None else table[label]
    if count is None or "expert" not in table.columns:
        kept = [name for name in table.columns if name not in wide]
        table = table.assign(line=table.index).melt([*kept, "line"], list(wide), "expert", "count").set_index("line")
        table["expert"] = table["expert"].map({name: str(number) for name, number in wide.items()})
    elif count != "count":
        table = table.rename(columns={count: "count"})
    for name in ("layer", "expert", "count"):
        table[name] = _whole_numbers(table[name], path)
    return table.assign(path=str(path))


def _selected(table: pd.DataFrame, path: pathlib.Path, options: ReadOptions, known: set[str]) -> pd.DataFrame:
    for name, value in options.select.items():
        if name not in table.columns:
            raise ValueError(f"{path}: has no column {name!r} to select by; it has {', '.join(table.columns)}")
        values = list(dict.fromkeys(table[name]))
        table = table[table[name] == value]
        if not len(table):
            raise ValueError(f"{path}: column {name} has no {value!r}; it has {', '.join(values[:8])}")
    label = {options.label_column} if options.label_column else set(LABELS)
    for name in table.columns:
        values = list(dict.fromkeys(table[name]))
        if name not in known | label and len(values) > 1:
            raise ValueError(
                f"{path}: column {name} has several values, which are not one record: select one of"
                f" {', '.join(values[:8])}, or remove the column"
            )
    return table.copy()


def _wide_columns(header: Sequence[str]) -> dict[str, int]:
    """Return the columns that each hold one expert's counts, with the experts' numbers."""
    found = {name: int(match[1]) for name in header if (match := WIDE.fullmatch(name))}
    return found if sorted(found.values()) == list(range(len(found))) else {}


def _whole_numbers(column: "pd.Series[str]", path: pathlib.Path) -> "pd.Series[int]":
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() | (numbers < 0) | (numbers != np.floor(numbers))
    if wrong.any():
        line = column.index[wrong][0]
        raise ValueError(f"{path}, line {line}: {column.name} is {column[wrong].iloc[0]!r}, not a whole number >= 0")
    return numbers.astype(np.int64)


def _num_experts(table: pd.DataFrame, builder: RecordBuilder, options: ReadOptions, where: str) -> int:
    largest = int(table["expert"].max())
    if options.num_experts is not None:
        if largest >= options.num_experts:
            raise ValueError(f"{where}: expert {largest} is out of range: --experts says {options.num_experts}")
        return options.num_experts
    complete = table.groupby(["layer", "label"])["expert"].nunique().eq(largest + 1).all()
    if not complete:
        builder.add_note(
            "num_experts_guessed",
            f"The table does not say how many experts there are; {largest + 1} was taken, after the largest number in"
            " it. Experts after it that no token chose would be missed: give --experts.",
        )
    return largest + 1


def _told_choices(table: pd.DataFrame) -> int | None:
    said = table["choices"].iloc[0] if "choices" in table.columns else ""
    return int(said) if said.isdecimal() else None
