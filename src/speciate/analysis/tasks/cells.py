"""The cells of a task's table: each metric and part at each length and depth, and what pools depths and lengths.

A question belongs to its own cell. Where a task varies the depth, its questions of one length are also pooled over the
depths; where it varies the length, all are pooled over the lengths too. So every number of a table has an interval.

Shape suffix: Q questions of one run.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.selection.tally import Array

NAN = float("nan")
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """A row of the table of tasks, for one arm."""

    metric: str
    part: str
    length: int
    """-1 where the task does not vary it, or where the cell pools all lengths."""
    depth: float
    """NaN where the task does not vary it, or where the cell pools all depths."""
    over: str
    """What the cell pools: nothing, `depths`, `lengths`, or `lengths and depths`."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The scores of one run in a cell, as arrays."""

    question_Q: Integers
    """The number of each question, the same in every run."""
    group_Q: Integers
    """The number of its group, the same in every run."""
    value_Q: Array
    weight_Q: Array
    chance_Q: Array

    def __len__(self) -> int:
        return len(self.value_Q)

    def at(self, row_X: Integers) -> Self:
        """Return the scores in some rows."""
        return type(self)(*(column[row_X] for column in vars(self).values()))

    def beyond_chance(self) -> Self:
        """Return the scores minus what guessing scores."""
        return type(self)(
            self.question_Q, self.group_Q, self.value_Q - self.chance_Q, self.weight_Q, np.zeros_like(self.chance_Q)
        )

    def mean(self) -> float:
        """Return the weighted mean over the questions."""
        return float(np.average(self.value_Q, weights=self.weight_Q))

    def mean_chance(self) -> float:
        """Return the weighted mean of what guessing scores."""
        return float(np.average(self.chance_Q, weights=self.weight_Q))


Run = tuple[str, int]
"""Ablation and seed."""


def cells(scores: pd.DataFrame) -> Iterator[tuple[Cell, dict[Run, Answers]]]:
    """Yield each cell with the scores of every run that has any in it.

    What varies is decided over all runs, so every run has the same cells.

    Args:
        scores: the rows of all runs on one task: ablation, seed, and the columns of `SCORES`.
    """
    length, depth = scores["length"].to_numpy(np.int64), scores["depth"].to_numpy(float)
    runs, of_run = _numbered(scores, ["ablation", "seed"])
    kinds, of_kind = _numbered(scores, ["metric", "part"])
    answers = Answers(
        _numbered(scores, ["item", "length", "depth"])[1],
        _numbered(scores, ["group"])[1],
        *(scores[name].to_numpy(float) for name in ("value", "weight", "chance")),
    )

    def split(row_X: Integers) -> dict[Run, Answers]:
        by_run = {run: row_X[of_run[row_X] == number] for number, run in enumerate(runs)}
        return {(str(arm), int(str(seed))): answers.at(rows) for (arm, seed), rows in by_run.items() if len(rows)}

    for number, (metric, part) in enumerate(kinds):
        (row_X,) = np.nonzero(of_kind == number)
        name, lengths, depths = (str(metric), str(part)), np.unique(length[row_X]), np.unique(depth[row_X])
        for one in lengths.tolist():
            of_length = row_X[length[row_X] == one]
            for place in np.unique(depth[of_length]).tolist():
                here = np.isnan(depth[of_length]) if np.isnan(place) else depth[of_length] == place
                yield Cell(*name, one, place, ""), split(of_length[here])
            if len(depths) > 1:
                yield Cell(*name, one, NAN, "depths"), split(of_length)
        if len(lengths) > 1:
            yield Cell(*name, -1, NAN, "lengths and depths" if len(depths) > 1 else "lengths"), split(row_X)


def _numbered(scores: pd.DataFrame, columns: list[str]) -> tuple[list[tuple[object, ...]], Integers]:
    """Return the distinct values of some columns, in the order of their first row, and the number of each row's."""
    groups = scores.groupby(columns, sort=False, dropna=False)
    names = [name if isinstance(name, tuple) else (name,) for name, _ in groups] if len(columns) == 2 else []
    return names, groups.ngroup().to_numpy(np.int64)
