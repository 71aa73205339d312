"""Read Speciate's own format: a parquet file with one row a choice, as `speciate.traces.write` writes it.

Any other program may write it, too: the columns are those of `parquet_file.COLUMNS`, in any order of rows, as long as
the choices of a token stand in one file. A file whose row groups have one layer each is read fastest.

Shape suffixes: M rows, N decisions, K chosen experts.
"""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.selection.record_builder import RecordBuilder
from speciate.selection.routing_record import Integers
from speciate.traces.columns import Names, numbers_of, run_unique
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.decisions import Decisions
from speciate.traces.loose_rows import Arrays, group_rows
from speciate.traces.parquet_file import COLUMNS, Layout, column_names, explain_errors, read_layout

SUMMARY = "Speciate's own format: a parquet file with one row for each choice"
FILES = "`*.parquet`"
CONTENTS = Contents(documents=True, tokens=True, order=True, weights=True, phases=True, labels=True)
LOOKS_FOR = "a parquet file with the columns `layer` and `expert`"

LONGEST_TRUSTED = 60
"""Bytes of a string from which on a writer may have cut it in a row group's statistics."""


def matches(path: pathlib.Path) -> bool:
    names = column_names(path)
    return names is not None and {"layer", "expert"} <= set(names)


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    decisions, seen = Decisions(builder, options), dict[int, int]()
    for path in paths:
        with explain_errors(path), pq.ParquetFile(path) as file:
            _File(file, path, decisions, options, seen).read()
    decisions.finish()


@dataclass(eq=False)
class _Tokens:
    """Which tokens the decisions of a row group are about."""

    row_N: Integers
    position_N: Integers | None
    token_N: Integers | None


@dataclass(eq=False)
class _File:
    file: pq.ParquetFile
    path: pathlib.Path
    decisions: Decisions
    options: ReadOptions
    seen: dict[int, int]
    """Tokens of each layer so far, of all files, from which windows are counted where there are no documents."""
    layout: Layout = field(init=False)
    num_chosen: int = field(init=False)
    names: Names = field(default_factory=Names)
    rest: Arrays | None = None
    """Rows of decisions that had fewer than k choices in their row group; the others may follow."""

    def __post_init__(self) -> None:
        self.layout = read_layout(self.file, self.path)
        names = set(self.file.schema_arrow.names)
        missing = {"layer", "expert"} - names
        if missing:
            raise ValueError(f"{self.path}: has no column {', '.join(sorted(missing))}")
        self.columns = [name for name in COLUMNS if name in names]
        if self.options.label_column is not None:
            if self.options.label_column not in names:
                there = ", ".join(sorted(names))
                raise ValueError(
                    f"{self.path}: has no column {self.options.label_column!r} for the label; it has {there}"
                )
            self.columns = [name for name in self.columns if name != "label"] + [self.options.label_column]
        self.has_documents = "document" in names
        if not self.has_documents:
            self.decisions.builder.has_documents = False
        if not self.file.metadata.num_rows:
            raise ValueError(f"{self.path}: has no rows")
        self.num_chosen = self._find_num_chosen()

    def read(self) -> None:
        tokens: _Tokens | None = None
        repeats = frozenset(self.layout.repeats)
        for group in range(self.file.metadata.num_row_groups):
            if not self.file.metadata.row_group(group).num_rows:
                continue
            constant = self._constants(group)
            if self.layout.rows and "layer" in constant and self._is_in_turn(group):
                tokens = self._read_in_turn(group, constant, tokens if group in repeats else None)
            else:
                tokens = None
                self._read_rows(group, constant)
        if self.rest is not None:
            self._add_rows(self.rest, "its end", last=True)

    def _where(self, group: int) -> str:
        return f"{self.path}, row group {group}"

    def _find_num_chosen(self) -> int:
        """Return k: as the writer or the user says, else from the ranks, else from the first token."""
        said = self.layout.num_chosen or self.options.num_chosen
        if said is not None:
            return said
        if "rank" in self.columns:
            largest = 0
            for group in range(self.file.metadata.num_row_groups):
                bounds = self._bounds(group).get("rank")
                largest = max(largest, bounds[1] if bounds else self._column(group, "rank").max())
            return int(largest) + 1
        if "position" not in self.columns:
            raise ValueError(
                f"{self.path}: has neither `position` nor `rank`, so nothing tells which choices are one token's;"
                " give --chosen"
            )
        token_of = self._numbers(self._table(0, [name for name in self.columns if name in _TOKEN]))
        _, count = np.unique(np.stack(list(token_of.values())), axis=1, return_counts=True)
        return int(count.max())

    def _bounds(self, group: int) -> dict[str, tuple[Any, Any]]:
        """Return the smallest and largest value of each column that has statistics and no null."""
        found = {}
        row_group = self.file.metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            stats = column.statistics
            if stats is not None and stats.has_min_max and stats.has_null_count and not stats.null_count:
                found[column.path_in_schema] = stats.min, stats.max
        return found

    def _constants(self, group: int) -> dict[str, Any]:
        """Return the columns that have one value in a row group, by its statistics; they need not be read."""
        constant = {}
        for name, (low, high) in self._bounds(group).items():
            if low == high and not (isinstance(low, str | bytes) and len(low) > LONGEST_TRUSTED):
                constant[name] = low.decode() if isinstance(low, bytes) else low
        return constant

    def _table(self, group: int, names: list[str]) -> pa.Table:
        return self.file.read_row_group(group, columns=names)

    def _column(self, group: int, name: str) -> npt.NDArray[Any]:
        return self._numbers(self._table(group, [name]))[name]

    def _numbers(self, table: pa.Table) -> Arrays:
        """Return the columns as arrays; texts become numbers of their names, and nulls become -1."""
        return {
            name: numbers_of(table.column(name), name, f"{self.path}: column {name}", self.names)
            for name in table.column_names
        }

    def _is_in_turn(self, group: int) -> bool:
        """Tell whether the k choices of each token follow one another, which the writer says: by the group's ranks."""
        bounds = self._bounds(group).get("rank")
        rows = self.file.metadata.row_group(group).num_rows
        return bounds == (0, self.num_chosen - 1) and rows % self.num_chosen == 0

    def _read_in_turn(self, group: int, constant: dict[str, Any], tokens: _Tokens | None) -> _Tokens:
        """Add a row group in which the k choices of each token follow one another."""
        names = ["expert"] if "weight" not in self.columns or self._all_null(group, "weight") else ["expert", "weight"]
        if tokens is None:
            names += [name for name in self.columns if name not in {*names, "layer", "rank", "weight", *constant}]
        found = self._numbers(self._table(group, names))
        k = self.num_chosen
        choice_NK = found["expert"].reshape(-1, k)
        if tokens is None:
            each = {name: value[::k] for name, value in found.items() if name not in ("expert", "weight")}
            tokens = self._tokens(each, constant, len(choice_NK), int(constant["layer"]))
        weight_M = found.get("weight")
        self._add(
            self._where(group),
            int(constant["layer"]),
            tokens,
            choice_NK,
            weight_NK=None if weight_M is None else weight_M.reshape(-1, k),
        )
        return tokens

    def _all_null(self, group: int, name: str) -> bool:
        row_group = self.file.metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            if column.path_in_schema == name and column.statistics is not None and column.statistics.has_null_count:
                return bool(column.statistics.null_count == row_group.num_rows)
        return False

    def _tokens(self, each: Arrays, constant: dict[str, Any], num: int, layer: int) -> _Tokens:
        """Return which documents' tokens these are; texts in `each` are numbers of `self.names`."""
        position_N = each.get("position")
        token_N = each.get("token")
        if not self.has_documents:
            start = self.seen.get(layer, 0)
            self.seen[layer] = start + num
            at_N = np.arange(start, start + num)
            each = {**each, "document": at_N // self.options.document_length}
            position_N = at_N % self.options.document_length
        keys = [name for name in ("document", self.options.label_column or "label", "phase") if name in each]
        if keys:
            columns = [each[name].astype(np.int64) for name in keys]
            code_N = columns[0]
            for column in columns[1:]:
                code_N = code_N * (int(column.max(initial=0)) + 2) + column + 1
            _, first, row_N = run_unique(code_N)
        else:
            first, row_N = np.zeros(1, dtype=np.int64), np.zeros(num, dtype=np.int64)
        rows, names = [], []
        for at in first:
            named = {name: self._text(name, each, constant, at) for name in ("document", "label", "phase")}
            rows.append(self.decisions.row(named["document"], label=named["label"], phase=named["phase"]))
            names.append(named["document"])
        row_R = np.array(rows, dtype=np.int64)
        if token_N is None and self.options.token_ids and position_N is not None and self.has_documents:
            token_N = self._join_tokens(names, row_N, position_N)
        return _Tokens(row_R[row_N], position_N, token_N)

    def _join_tokens(self, names: list[str], row_N: Integers, position_N: Integers) -> Integers:
        token_N = np.full(len(row_N), -1, dtype=np.int64)
        ends = np.cumsum(np.bincount(row_N, minlength=len(names)))
        for name, at_N in zip(names, np.split(np.argsort(row_N, kind="stable"), ends[:-1]), strict=True):
            known = self.decisions.tokens(name, position_N[at_N])
            if known is not None:
                token_N[at_N] = known
        return token_N

    def _text(self, name: str, each: Arrays, constant: dict[str, Any], at: int) -> str:
        column = self.options.label_column or name if name == "label" else name
        if name == "document" and not self.has_documents:
            return f"window {each['document'][at]}"
        if column in constant:
            return str(constant[column])
        return self.names.text(int(each[column][at])) if column in each else ""

    def _add(
        self,
        where: str,
        layer: int,
        tokens: _Tokens,
        choice_NK: npt.NDArray[Any],
        *,
        weight_NK: npt.NDArray[Any] | None,
    ) -> None:
        self.decisions.add(
            where,
            (self.layout.paths.get(str(layer), f"layer {layer}"), layer),
            tokens.row_N,
            choice_NK,
            ordered="rank" in self.columns,
            num_experts=self.layout.num_experts,
            position_N=tokens.position_N,
            token_N=tokens.token_N,
            weight_NK=weight_NK,
        )

    def _read_rows(self, group: int, constant: dict[str, Any]) -> None:
        """Add a row group whose rows stand in any order."""
        rows = self.file.metadata.row_group(group).num_rows
        found = self._numbers(
            self._table(group, [name for name in self.columns if name not in constant or name == "expert"])
        )
        for name, value in constant.items():
            if name in self.columns and name != "expert":
                code = self.names.number(value) if isinstance(value, str) else value
                found[name] = np.full(rows, code, dtype=np.int64)
        if self.rest is not None:
            found = {name: np.concatenate([self.rest[name], value]) for name, value in found.items()}
        self._add_rows(found, self._where(group), last=False)

    def _add_rows(self, rows: Arrays, where: str, *, last: bool) -> None:
        """Add those decisions that are whole; `last`: the others, too."""
        grouped = group_rows(rows, self.num_chosen, where, self.names, keep_incomplete=last)
        self.rest = grouped.rest
        if grouped.num_incomplete:
            self.decisions.builder.add_note(
                "incomplete_decisions",
                f"{self.path}: {grouped.num_incomplete} decisions have fewer than {self.num_chosen} choices; they count"
                " as what they have. The file may be cut off, or some choices were dropped.",
            )
        for part in grouped.parts():
            tokens = self._tokens(part.each, {}, len(part.choice_NK), part.layer)
            self._add(where, part.layer, tokens, part.choice_NK, weight_NK=part.weight_NK)


_TOKEN = ("document", "position", "layer")
