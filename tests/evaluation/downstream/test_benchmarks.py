"""Test that studies/parts/downstream.yaml names what the pinned harness knows, with the right kind of task."""

import pathlib

import pytest

from speciate.config.study import read_study
from speciate.evaluation.task import harness, program

STUDY = read_study(pathlib.Path(__file__).parents[3] / "studies" / "downstream.yaml")
TASKS = {name: options for name, options in STUDY.evaluation.tasks.items() if isinstance(options, harness.Options)}
NAMED = {
    *("mmlu", "ceval", "gsm8k", "humaneval", "hellaswag", "arc_challenge", "truthfulqa", "winogrande", "lambada"),
    *("wikitext", "c4", "ruler", "longbench", "infinitebench"),
}
"""What the documents of the four systems and their fields name."""


def test_every_benchmark_is_there_and_programs_run_in_the_sandbox() -> None:
    assert set(STUDY.evaluation.tasks) == NAMED
    assert isinstance(STUDY.evaluation.tasks["humaneval"], program.Options)
    assert set(TASKS) == NAMED - {"humaneval"}


def test_the_harness_knows_every_name() -> None:
    pytest.importorskip("lm_eval", reason="the lm-evaluation-harness is not installed here: make test-evaluation")
    from lm_eval.tasks import TaskManager

    known = TaskManager().all_tasks
    assert [name for options in TASKS.values() for name in options.tasks if name not in known] == []
