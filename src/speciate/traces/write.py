"""Write a trace in Speciate's own format, from a recorder or from a RoutingRecord's sample.

Shape suffixes: N tokens, K chosen experts.
"""

import pathlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.io import atomic_write
from speciate.selection.routing_record import NOT_CHOSEN, RoutingRecord
from speciate.traces.parquet_file import COLUMNS, Layout

TOKENS_AT_ONCE = 1 << 16
"""Tokens of a layer that are collected before they are written as one row group."""


class TraceWriter:
    """Writes a trace as it is recorded; use it as a context, so that a file that is not whole has another name.

    Example:
        with TraceWriter(path, num_experts=64, num_chosen=8) as trace:
            trace.add(3, experts, document="report.txt", position=positions, token=token_ids, weight=weights)
    """

    def __init__(
        self, path: pathlib.Path, *, num_experts: int, num_chosen: int, paths: Mapping[int, str] | None = None
    ) -> None:
        """Begin a file.

        Args:
            path: the file to write.
            num_experts: E, the same in every layer.
            num_chosen: k.
            paths: path of each layer's router, as the model names it.
        """
        self._num_experts, self._num_chosen = num_experts, num_chosen
        self._paths = {str(layer): name for layer, name in (paths or {}).items()}
        self._target = atomic_write(path)
        self._writer: pq.ParquetWriter | None = None
        self._waiting: dict[int, list[dict[str, npt.NDArray[Any]]]] = {}
        self._rows: list[int] = []
        self._repeats: list[int] = []
        self._number_of: dict[str, int] = {}
        self._names: list[str] = []
        self._last: dict[str, npt.NDArray[Any]] = {}
        self._columns: dict[str, pa.Array] = {}

    def __enter__(self) -> Self:
        self._file = self._target.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            if self._writer is not None:
                layout = Layout(self._num_experts, self._num_chosen, self._paths, self._rows, self._repeats)
                self._writer.add_key_value_metadata(layout.to_metadata())
                self._writer.close()
        finally:
            self._target.__exit__(kind, error, trace)

    def add(
        self,
        layer: int,
        choice_NK: npt.NDArray[np.integer],
        *,
        document: str | Sequence[str],
        position: npt.NDArray[np.integer],
        token: npt.NDArray[np.integer] | None = None,
        weight: npt.NDArray[np.floating] | None = None,
        label: str | Sequence[str] = "",
        phase: str | Sequence[str] = "",
    ) -> None:
        """Add what N tokens chose in one layer.

        Args:
            layer: number of the layer.
            choice_NK: experts, the first choice first; -1 for a choice that was not made.
            document: name of each token's document, or of all.
            position: position of each token in its document.
            token: token ids.
            weight: weights of the experts, [N, K].
            label: label of each token's document, or of all.
            phase: `prompt`, `generation` or empty, of each token or of all.
        """
        num, k = choice_NK.shape
        if k != self._num_chosen:
            raise ValueError(f"layer {layer}: {k} experts a token, but the trace was begun with {self._num_chosen}")
        if choice_NK.size and not NOT_CHOSEN <= int(choice_NK.min()) <= int(choice_NK.max()) < self._num_experts:
            raise ValueError(f"layer {layer}: an expert is outside 0 ... {self._num_experts - 1}")
        part: dict[str, npt.NDArray[Any]] = {
            "document": self._numbers(document, num),
            "position": np.asarray(position, dtype=np.int32),
            "label": self._numbers(label, num),
            "phase": self._numbers(phase, num),
            "token": np.full(num, -1, dtype=np.int32) if token is None else np.asarray(token, dtype=np.int32),
            "choice": np.asarray(choice_NK, dtype=np.int16),
            "weight": np.full((num, k), np.nan, dtype=np.float32) if weight is None else np.asarray(weight, np.float32),
        }
        self._waiting.setdefault(layer, []).append(part)
        if sum(len(each["choice"]) for each in self._waiting[layer]) > TOKENS_AT_ONCE:
            self._flush(but=layer)

    def _numbers(self, names: str | Sequence[str], num: int) -> npt.NDArray[np.int32]:
        if isinstance(names, str):
            return np.full(num, self._number(names), dtype=np.int32)
        return np.array([self._number(name) for name in names], dtype=np.int32)

    def _number(self, name: str) -> int:
        number = self._number_of.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def _flush(self, but: int | None = None) -> None:
        """Write what waits. Of layer `but` the last part stays, which other layers have yet to get."""
        kept = [] if but is None else [self._waiting[but].pop()]
        for layer, parts in sorted(self._waiting.items()):
            if not parts:
                continue
            joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            tokens = {name: joined[name] for name in ("document", "position", "label", "phase", "token")}
            if self._last and all(np.array_equal(self._last[name], tokens[name]) for name in tokens):
                self._repeats.append(len(self._rows))
            else:
                self._last, self._columns = tokens, self._token_columns(tokens)
            self._write(layer, joined["choice"].reshape(-1), joined["weight"].reshape(-1))
        self._waiting = {} if but is None else {but: kept}

    def _token_columns(self, tokens: dict[str, npt.NDArray[Any]]) -> dict[str, pa.Array]:
        """Return the columns that are the same in every layer, with a row for each of the k choices."""
        k = self._num_chosen

        def text(column: str) -> pa.Array:
            used, number_N = np.unique(tokens[column], return_inverse=True)
            numbers = np.repeat(number_N.reshape(-1).astype(np.int32), k)
            return pa.DictionaryArray.from_arrays(numbers, pa.array([self._names[each] for each in used], pa.string()))

        token_M = np.repeat(tokens["token"], k)
        unknown_M = token_M < 0 if int(token_M.min(initial=0)) < 0 else None
        return {
            "document": text("document"),
            "position": pa.array(np.repeat(tokens["position"], k)),
            "token": pa.array(token_M, mask=unknown_M),
            "rank": pa.array(np.tile(np.arange(k, dtype=np.uint8), len(token_M) // k)),
            "label": text("label"),
            "phase": text("phase"),
        }

    def _write(self, layer: int, choice_M: npt.NDArray[Any], weight_M: npt.NDArray[Any]) -> None:
        num = len(choice_M)
        kind = pa.uint8() if self._num_experts <= 1 << 8 else pa.uint16()
        absent_M = choice_M < 0 if int(choice_M.min(initial=0)) < 0 else None
        columns = {
            **self._columns,
            "layer": pa.array(np.full(num, layer, dtype=np.int16)),
            "expert": pa.array(choice_M.astype(kind.to_pandas_dtype()), kind, mask=absent_M),
            "weight": pa.array(weight_M, from_pandas=True),
        }
        table = pa.table({name: columns[name] for name in COLUMNS})
        if self._writer is None:
            plain = ("position", "weight")
            self._writer = pq.ParquetWriter(
                self._file,
                table.schema,
                compression={name: "none" if name == "expert" else "zstd" for name in table.column_names},
                use_dictionary=[name for name in table.column_names if name not in plain],
                column_encoding={"position": "DELTA_BINARY_PACKED"},
            )
        self._writer.write_table(table, row_group_size=max(num, 1))
        self._rows.append(num)


def write_trace(record: RoutingRecord, path: pathlib.Path) -> None:
    """Write the sample of a record, which holds whole documents token by token.

    Raises:
        ValueError: the record has no sample, or its selectors have different numbers of experts.
    """
    sample, documents = record.sample, record.documents
    if sample is None:
        raise ValueError(f"{record.source}: holds sums alone, without single tokens, so there is no trace to write")
    sizes = {selector.num_slots for selector in record.selectors}
    if len(sizes) != 1:
        raise ValueError(f"{record.source}: its selectors have different numbers of experts: {sorted(sizes)}")
    paths = {selector.layer: selector.path for selector in record.selectors}
    if len(paths) != len(record.selectors):
        raise ValueError(f"{record.source}: two of its selectors have the same layer's number")
    names = {column: documents[column].to_numpy()[sample.document_P] for column in ("document", "label", "phase")}
    (num_experts,), num_chosen = sizes, sample.choice_LPK.shape[2]
    with TraceWriter(path, num_experts=num_experts, num_chosen=num_chosen, paths=paths) as trace:
        for place, selector in enumerate(record.selectors):
            trace.add(
                selector.layer,
                sample.choice_LPK[place],
                document=names["document"],
                position=sample.position_P,
                token=sample.token_P,
                weight=None if sample.weight_LPK is None else sample.weight_LPK[place],
                label=names["label"],
                phase=names["phase"],
            )
