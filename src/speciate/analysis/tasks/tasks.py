"""The tables of a study's tasks: `tasks`, what each arm scores, and `task_differences`, what it scores beyond the
reference.

A run's scores may be missing, with a reason. Then the table says how many seeds of the arm have none, and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.analysis import tables
from speciate.analysis.tasks.cells import NAN, Cell, cells
from speciate.analysis.tasks.means import (
    Estimate,
    Settings,
    difference_of_runs,
    is_at_chance,
    mean_of_runs,
    weighted_mean,
)
from speciate.analysis.tasks.scores import QUESTION


@dataclass(frozen=True)
class Runs:
    """The runs that were evaluated."""

    arms: Sequence[str]
    seeds: Sequence[int]
    reference: str


Scored = Mapping[tuple[str, int], tuple[pd.DataFrame, str]]
"""(ablation, seed) -> the run's scores on a task, and the reason why there are none."""


def task_tables(task: str, scored: Scored, runs: Runs, settings: Settings) -> dict[str, pd.DataFrame]:
    """Return the rows of one task in the tables `tasks` and `task_differences`."""
    together = tables.stack(
        [rows.assign(ablation=ablation, seed=seed) for (ablation, seed), (rows, _) in scored.items() if len(rows)]
    )
    means, differences = [], []
    found = list(cells(together)) if len(together) else []
    for arm in runs.arms:
        reasons = {seed: scored[arm, seed][1] for seed in runs.seeds if not len(scored[arm, seed][0])}
        facts = {"task": task, "ablation": arm, "reason": "; ".join(dict.fromkeys(filter(None, reasons.values())))}
        rows = [_mean_row(cell, _by_seed(of_cell, arm, runs), settings) for cell, of_cell in found]
        present = [row for row in rows if row["num_seeds"]] or [_no_score()]
        means += [{**facts, **row, "missing": len(runs.seeds) - int(str(row["num_seeds"]))} for row in present]
        if arm != runs.reference and runs.reference in runs.arms:
            facts = {"task": task, "ablation": arm, "reference": runs.reference}
            differences += [
                {**facts, **row, "missing": len(runs.seeds) - int(str(row["num_seeds"]))}
                for cell, of_cell in found
                for row in [_difference_row(cell, of_cell, arm, runs=runs, settings=settings)]
                if row["num_seeds"]
            ]
    return {
        "tasks": tables.conform("tasks", pd.DataFrame(means)),
        "task_differences": tables.conform("task_differences", pd.DataFrame(differences)),
    }


def _by_seed(of_cell: pd.DataFrame, arm: str, runs: Runs) -> dict[int, pd.DataFrame]:
    """Return the rows of each seed of an arm that has any."""
    of_arm = of_cell[of_cell["ablation"] == arm]
    by_seed = {seed: of_arm[of_arm["seed"] == seed] for seed in runs.seeds}
    return {seed: rows for seed, rows in by_seed.items() if len(rows)}


def _columns(cell: Cell, estimate: Estimate, column: str) -> dict[str, object]:
    bounds = {"low": estimate.low, "high": estimate.high, "interval": estimate.interval}
    return {**vars(cell), column: estimate.value, **bounds}


def _mean_row(cell: Cell, by_seed: Mapping[int, pd.DataFrame], settings: Settings) -> dict[str, object]:
    """Return what an arm scores in a cell."""
    if not by_seed:
        return _no_score()
    every = pd.concat(by_seed.values())
    chance = sum(weighted_mean(run, "chance") for run in by_seed.values()) / len(by_seed)
    return {
        **_columns(cell, mean_of_runs(list(by_seed.values()), settings), "value"),
        "num_seeds": len(by_seed),
        "questions": len(every.drop_duplicates(QUESTION)),
        "groups": every["group"].nunique(),
        "chance": chance,
        "at_chance": is_at_chance(list(by_seed.values()), settings),
    }


def _no_score() -> dict[str, object]:
    """Return the columns of a row that has only a reason."""
    none = _columns(Cell("", "", -1, NAN, ""), Estimate(NAN, NAN, NAN, ""), "value")
    return {**none, **dict.fromkeys(("num_seeds", "questions", "groups"), 0), "chance": NAN, "at_chance": False}


def _by_question(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows indexed by their question; an index can hold no NaN."""
    return rows.assign(depth=rows["depth"].fillna(-1)).set_index(QUESTION)


def _difference_row(
    cell: Cell, of_cell: pd.DataFrame, arm: str, *, runs: Runs, settings: Settings
) -> dict[str, object]:
    """Return what an arm scores in a cell minus the reference, on the questions that both have at the same seed."""
    of_arm, of_reference = (_by_seed(of_cell, name, runs) for name in (arm, runs.reference))
    pairs, questions = [], set[tuple[object, ...]]()
    for seed in of_arm:
        if seed in of_reference:
            one, other = (_by_question(rows) for rows in (of_arm[seed], of_reference[seed]))
            shared = one.index.intersection(other.index)
            if len(shared):
                pairs.append((one.loc[shared], other.loc[shared]))
                questions |= set(shared)
    if not pairs:
        return {"num_seeds": 0}
    columns = _columns(cell, difference_of_runs(pairs, settings), "difference")
    return {**columns, "num_seeds": len(pairs), "questions": len(questions)}
