"""Bring rows of single choices, in any order, to decisions of k choices.

Shape suffixes: M rows, D decisions, N decisions of a layer, K chosen experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.routing_record import NOT_CHOSEN, Integers
from speciate.traces.columns import Names

Arrays = dict[str, npt.NDArray[Any]]
TWICE = " the same tokens were recorded twice (by ranks that share them?), or k is wrong"


@dataclass(eq=False)
class LayerPart:
    """Decisions of one layer."""

    layer: int
    choice_NK: npt.NDArray[np.int64]
    weight_NK: npt.NDArray[np.floating] | None
    each: Arrays
    """The other columns, a value for each decision."""


@dataclass(eq=False)
class Grouped:
    """The decisions among some rows."""

    rows: Arrays
    start_D: Integers
    count_D: Integers
    num_chosen: int
    rest: Arrays | None = None
    """Rows of decisions with fewer than k choices."""

    @property
    def num_incomplete(self) -> int:
        return int((self.count_D < self.num_chosen).sum())

    def parts(self) -> Iterator[LayerPart]:
        """Yield the decisions of each layer."""
        k, rows = self.num_chosen, self.rows
        layer_D = rows["layer"][self.start_D]
        for layer in np.unique(layer_D):
            start_N, count_N = self.start_D[layer_D == layer], self.count_D[layer_D == layer]
            made_NK = np.arange(k) < count_N[:, None]
            at_NK = np.where(made_NK, start_N[:, None] + np.arange(k), 0)
            choice_NK = np.where(made_NK, rows["expert"][at_NK].astype(np.int64), NOT_CHOSEN)
            weight_NK = np.where(made_NK, rows["weight"][at_NK], np.nan) if "weight" in rows else None
            yield LayerPart(int(layer), choice_NK, weight_NK, {name: value[start_N] for name, value in rows.items()})


def group_rows(rows: Arrays, num_chosen: int, where: str, names: Names, *, keep_incomplete: bool) -> Grouped:
    """Bring rows in order, and find where each decision begins.

    Args:
        rows: the columns, texts as numbers of `names`.
        num_chosen: k.
        where: the file and row group, for messages.
        names: the texts.
        keep_incomplete: whether decisions with fewer than k choices are decisions, too, or a rest that waits.

    Raises:
        ValueError: a decision has more than k choices, or two of one rank.
    """
    if "position" in rows:
        order_M = np.lexsort([rows[name] for name in ("rank", "position", "document", "layer") if name in rows])
        rows = {name: value[order_M] for name, value in rows.items()}
        same = np.ones(len(order_M) - 1, dtype=bool)
        for name in ("position", "document", "layer"):
            if name in rows:
                same &= rows[name][1:] == rows[name][:-1]
        start_D = np.flatnonzero(np.r_[True, ~same])
    else:
        # without positions, a token's choices follow one another
        order_M = np.argsort(rows["layer"], kind="stable")
        rows = {name: value[order_M] for name, value in rows.items()}
        start_D = np.flatnonzero(rows["rank"] == 0) if "rank" in rows else np.arange(0, len(order_M), num_chosen)
    count_D = np.diff(np.r_[start_D, len(order_M)])
    if count_D.max() > num_chosen:
        at = start_D[int(np.argmax(count_D > num_chosen))]
        most = int(count_D.max())
        raise ValueError(f"{where}: {_token(rows, at, names)} has {most} choices, but k is {num_chosen}:{TWICE}")
    if "rank" in rows and "position" in rows:
        rank_M = rows["rank"]
        twice = same & (rank_M[1:] == rank_M[:-1])
        if twice.any():
            at = int(np.argmax(twice))
            raise ValueError(f"{where}: {_token(rows, at, names)} has two choices of rank {rank_M[at]}:{TWICE}")
    whole_D = count_D == num_chosen
    if whole_D.all() or keep_incomplete:
        return Grouped(rows, start_D, count_D, num_chosen)
    left_M = np.repeat(~whole_D, count_D)
    rest = {name: value[left_M] for name, value in rows.items()}
    rows = {name: value[~left_M] for name, value in rows.items()}
    count_D = count_D[whole_D]
    return Grouped(rows, np.cumsum(count_D) - count_D, count_D, num_chosen, rest)


def _token(rows: Arrays, at: int, names: Names) -> str:
    parts = [f"layer {rows['layer'][at]}"]
    if "document" in rows:
        parts.append(f"document {names.text(int(rows['document'][at]))!r}")
    return ", ".join(parts + ([f"position {rows['position'][at]}"] if "position" in rows else []))
