"""The tables of a study's tasks: `tasks`, what each arm scores, and `task_differences`, what it scores beyond the
reference.

A run's scores may be missing, with a reason. Then the table says how many seeds of the arm have none, and why.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from speciate.analysis import tables
from speciate.analysis.tasks.cells import NAN, Answers, Cell, cells
from speciate.analysis.tasks.cells import Run as Key
from speciate.analysis.tasks.means import Estimate, Settings, difference_of_runs, is_at_chance, mean_of_runs
from speciate.analysis.tasks.perplexity import perplexities

PROPORTIONS = ("acc", "choice_accuracy", "exact_match", "pass_at_", "writes_python")
"""How the names of metrics begin that are proportions, the harness's among them: their means lie from 0 to 1."""


@dataclass(frozen=True)
class Runs:
    """The runs that were evaluated."""

    arms: Sequence[str]
    seeds: Sequence[int]
    reference: str


Scored = Mapping[Key, tuple[pd.DataFrame, str]]
"""(ablation, seed) -> the run's scores on a task, and the reason why some or all are missing."""


def task_tables(task: str, scored: Scored, runs: Runs, settings: Settings) -> dict[str, pd.DataFrame]:
    """Return the rows of one task in the tables `tasks` and `task_differences`."""
    together = tables.stack(
        [rows.assign(ablation=ablation, seed=seed) for (ablation, seed), (rows, _) in scored.items() if len(rows)]
    )
    means: list[dict[str, object]] = []
    differences: list[dict[str, object]] = []
    found = list(cells(together)) if len(together) else []
    for arm in runs.arms:
        reason = "; ".join(dict.fromkeys(filter(None, (scored[arm, seed][1] for seed in runs.seeds))))
        rows = []
        for cell, answers in found:
            of_seeds = [answers[arm, seed] for seed in runs.seeds if (arm, seed) in answers]
            if of_seeds:
                rows.append({**_mean_row(cell, of_seeds, settings), "missing": len(runs.seeds) - len(of_seeds)})
            pairs = [_same_questions(answers.get((arm, s)), answers.get((runs.reference, s))) for s in runs.seeds]
            kept = [pair for pair in pairs if pair is not None]
            if kept and arm != runs.reference:
                row = _difference_row(cell, kept, settings)
                names = {"task": task, "ablation": arm, "reference": runs.reference}
                differences.append({**names, **row, "missing": len(runs.seeds) - len(kept)})
        rows += perplexities(list(rows))
        means += [
            {**row, "task": task, "ablation": arm, "reason": reason} for row in rows or [_no_score(len(runs.seeds))]
        ]
    return {
        "tasks": tables.conform("tasks", pd.DataFrame(means)),
        "task_differences": tables.conform("task_differences", pd.DataFrame(differences)),
    }


def _columns(cell: Cell, estimate: Estimate, column: str) -> dict[str, object]:
    bounds = {"low": estimate.low, "high": estimate.high, "interval": estimate.interval}
    return {**vars(cell), column: estimate.value, **bounds}


def _mean_row(cell: Cell, runs: list[Answers], settings: Settings) -> dict[str, object]:
    """Return what an arm scores in a cell; one run a seed."""
    questions, groups = (np.unique(np.concatenate(numbers)) for numbers in zip(*map(_numbers, runs), strict=True))
    return {
        **_columns(cell, _possible(cell.metric, mean_of_runs(runs, settings)), "value"),
        "num_seeds": len(runs),
        "questions": len(questions),
        "groups": len(groups),
        "chance": sum(run.mean_chance() for run in runs) / len(runs),
        "at_chance": is_at_chance(runs, settings),
    }


def _possible(metric: str, mean: Estimate) -> Estimate:
    """Return a mean whose interval is cut to what the metric can be; that leaves its coverage as it is."""
    if not metric.startswith(PROPORTIONS):
        return mean
    return dataclasses.replace(mean, low=max(mean.low, 0.0), high=min(mean.high, 1.0))


def _numbers(run: Answers) -> tuple[object, object]:
    return run.question_Q, run.group_Q


def _no_score(num_seeds: int) -> dict[str, object]:
    """Return the columns of a row that has only a reason."""
    none = _columns(Cell("", "", -1, NAN, ""), Estimate(NAN, NAN, NAN, ""), "value")
    counts = {**dict.fromkeys(("num_seeds", "questions", "groups"), 0), "missing": num_seeds}
    return {**none, **counts, "chance": NAN, "at_chance": False}


def _same_questions(arm: Answers | None, reference: Answers | None) -> tuple[Answers, Answers] | None:
    """Return two runs on the questions that both have, in one order; None where they share none."""
    if arm is None or reference is None:
        return None
    _, own, other = np.intersect1d(arm.question_Q, reference.question_Q, return_indices=True)
    return (arm.at(own), reference.at(other)) if len(own) else None


def _difference_row(cell: Cell, pairs: list[tuple[Answers, Answers]], settings: Settings) -> dict[str, object]:
    """Return what an arm scores in a cell minus the reference; one pair a seed."""
    return {
        **_columns(cell, difference_of_runs(pairs, settings), "difference"),
        "num_seeds": len(pairs),
        "questions": len(np.unique(np.concatenate([arm.question_Q for arm, _ in pairs]))),
    }
