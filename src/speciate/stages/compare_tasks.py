r"""Compare what the arms of a study score on its tasks.

The stage turns the scores of all runs into the tables `tasks` and `task_differences`: means over questions and seeds,
and differences from the reference, paired by seed and question, each with its interval. Where a run has no score, the
table says why.

Example:
    speciate compare_tasks --spec results/specs/<digest>.json --scores results/smoke/tasks --output-folder tables
"""

import argparse
import pathlib

import pandas as pd

from speciate.analysis import tables
from speciate.analysis.tasks.means import Settings
from speciate.analysis.tasks.scores import read_scores
from speciate.analysis.tasks.tasks import Runs, task_tables
from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import SCORED_TASKS, CompareTasksSpec
from speciate.io import atomic_write
from speciate.reporting.formats import pluralise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a CompareTasksSpec")
    parser.add_argument(
        "--scores",
        type=pathlib.Path,
        required=True,
        help="the folder that holds ablation/seed<k>/TASK.parquet, which `evaluate_tasks` wrote of each run",
    )
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write each table as .csv and .parquet"
    )


def main(arguments: argparse.Namespace) -> None:
    """Read the runs' scores, compare, and write the study's tables."""
    spec = read_spec(CompareTasksSpec, arguments.spec)
    for name, rows in compare_tasks(spec, arguments.scores).items():
        with atomic_write(arguments.output_folder / f"{name}.parquet") as temp_path:
            tables.write_parquet(rows, name, temp_path)
        with atomic_write(arguments.output_folder / f"{name}.csv") as temp_path:
            tables.write_csv(rows, temp_path)
        for row in (
            rows[rows["reason"] != ""].drop_duplicates(["task", "ablation"]).itertuples() if name == "tasks" else ()
        ):
            of = f"{row.missing} of {pluralise(len(spec.seeds), 'seed')}"
            what = f"no score of {of}" if row.missing else "left out"
            log(f"task {row.task}, {row.ablation}: {what}: {row.reason}")


def compare_tasks(spec: CompareTasksSpec, folder: pathlib.Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a study's tasks, by name (`SCORED_TASKS`).

    Raises:
        ValueError: a file of scores is missing, or is none; names it.
    """
    runs = Runs(spec.arms, spec.seeds, spec.reference)
    settings = Settings(spec.confidence, spec.resamples, spec.draw_seed)
    parts = []
    for task in spec.tasks:
        scored = {
            (arm, seed): read_scores(folder / arm / f"seed{seed}" / f"{task}.parquet")
            for arm in spec.arms
            for seed in spec.seeds
        }
        parts.append(task_tables(task, scored, runs, settings))
    return {name: tables.conform(name, tables.stack([part[name] for part in parts])) for name in SCORED_TASKS}
