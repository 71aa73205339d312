"""Test that every kind of task runs through the workflow, from texts to report: studies/smoke_evaluation.yaml."""

import pathlib

import pytest
from tests.workflow.conftest import Workspace

from speciate.analysis.tables import read_table
from speciate.config.components import kinds_in
from speciate.config.study import read_study

pytest.importorskip("lm_eval", reason="the lm-evaluation-harness is not installed here: make test-evaluation")
ROOT = pathlib.Path(__file__).parents[3]
FILE = "studies/smoke_evaluation.yaml"


def test_every_kind_of_task_gives_scores_or_a_reason(tmp_path: pathlib.Path) -> None:
    study = read_study(ROOT / FILE)
    assert {task.kind for task in study.evaluation.tasks.values()} == set(kinds_in("evaluation/task"))
    workspace = Workspace(tmp_path / "clone")
    done = workspace.snakemake("--configfile", FILE, "--cores", "2")
    assert done.returncode == 0, done.stdout
    results = workspace.folder / "results" / "smoke_evaluation"
    rows = read_table(results / "tables" / "tasks.parquet", "tasks")
    scored = rows[rows["num_seeds"] > 0]
    every = set(study.evaluation.tasks)
    assert {name: set(of_arm["task"]) for name, of_arm in scored.groupby("ablation")} == {
        "dense": every,
        "auxiliary": every,
        # masked diffusion answers no question that follows a context
        "atat": every - {"copying", "needle", "ruler", "recall"},
    }
    assert (rows.loc[rows["num_seeds"] == 0, "reason"] != "").all()
    assert set(rows.loc[rows["task"] == "ruler", "part"]) > {"single", "multi_key", "frequent_words"}
    report = (results / "report.html").read_text()
    assert all(reason in report for reason in ("fills masks", "also sees later ones"))
    assert "Nothing to be done" in workspace.snakemake("--configfile", FILE, "--dry-run").stdout
