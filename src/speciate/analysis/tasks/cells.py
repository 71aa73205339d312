"""The cells of a task's table: each metric and part at each length and depth, and what pools depths and lengths.

A question belongs to its own cell. Where a task varies the depth, its questions of one length are also pooled over the
depths; where it varies the length, all are pooled over the lengths too. So every number of a table has an interval.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

NAN = float("nan")


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


def cells(scores: pd.DataFrame) -> Iterator[tuple[Cell, pd.DataFrame]]:
    """Yield each cell with its rows of `scores`, which holds all runs of one task.

    What varies is decided over all runs, so every run has the same cells.
    """
    for (metric, part), rows in scores.groupby(["metric", "part"], sort=False):
        name, lengths, depths = (str(metric), str(part)), sorted(rows["length"].unique()), _distinct(rows["depth"])
        for length in map(int, lengths):
            of_length = rows[rows["length"] == length]
            for depth in _distinct(of_length["depth"]):
                is_here = of_length["depth"].isna() if np.isnan(depth) else of_length["depth"] == depth
                yield Cell(*name, length, depth, ""), of_length[is_here]
            if len(depths) > 1:
                yield Cell(*name, length, NAN, "depths"), of_length
        if len(lengths) > 1:
            yield Cell(*name, -1, NAN, "lengths and depths" if len(depths) > 1 else "lengths"), rows


def _distinct(depth: pd.Series) -> list[float]:
    """Return the distinct depths in ascending order; NaN is last."""
    return [float(value) for value in np.unique(depth.to_numpy(dtype=float))]
