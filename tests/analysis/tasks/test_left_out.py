"""Test that the reason why a task left out some of its questions reaches the table of tasks."""

import pathlib

import pandas as pd

from speciate.analysis.tasks.means import Settings
from speciate.analysis.tasks.scores import read_scores, write_scores
from speciate.analysis.tasks.tasks import Runs, task_tables

REASON = "length 1024 is longer than the model's context 600"


def test_a_length_that_is_left_out_has_its_reason_beside_the_scores_of_the_others(tmp_path: pathlib.Path) -> None:
    facts = {"metric": "accuracy", "part": "", "group": "a", "length": 512, "depth": 0.5, "weight": 1.0, "chance": 0.0}
    rows = pd.DataFrame([{**facts, "item": item, "value": value} for item, value in (("a", 1.0), ("b", 0.0))])
    scored = {}
    for arm, reason in (("attention", REASON), ("mamba", "")):
        file = tmp_path / f"{arm}.parquet"
        write_scores(rows, reason, file)
        scored[arm, 0] = read_scores(file)
    table = task_tables("needle", scored, Runs(("attention", "mamba"), (0,), "attention"), Settings(0.95, 99, 0))[
        "tasks"
    ]
    by_arm = table.set_index("ablation")
    assert by_arm["reason"].to_dict() == {"attention": REASON, "mamba": ""}
    assert by_arm["num_seeds"].to_dict() == {"attention": 1, "mamba": 1}
    assert by_arm["value"].to_dict() == {"attention": 0.5, "mamba": 0.5}
