"""Test what a run of several processes asks of the machine, and how it is launched."""

import pathlib
import runpy
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from tests.workflow.conftest import ROOT
from tests.workflow.test_rules import RULES

from speciate.config.components import options_of
from speciate.config.extends import merge, read_yaml
from speciate.config.stage_specs import AGREED, CARDED, COMPARED, MEASURED, SCORED_TASKS, SWAPPED
from speciate.config.study import parse_study
from speciate.graph.study_graph import StudyGraph
from speciate.warm import ADDRESS

LAUNCHER = "python -m torch.distributed.run --standalone --nproc-per-node 2 --no-python"
# training -> cores, GPUs, launcher
CASES: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "gpus": ({"processes": 2, "threads": 3, "device": "cuda"}, 6, 2, LAUNCHER),
    "cpu": ({"processes": 2, "device": "cpu"}, 2, 0, LAUNCHER),
    "auto": ({"processes": 2}, 2, 0, LAUNCHER),
    "alone": ({"threads": 2, "device": "cuda"}, 2, 1, ""),
}


@pytest.fixture(scope="module")
def functions() -> dict[str, Any]:
    """Return the functions of paths.smk, for a study with an arm for each case."""
    arms = {name: {"about": name, "change": {"training": training}} for name, (training, *_) in CASES.items()}
    study = parse_study(merge(read_yaml(ROOT / "studies/smoke.yaml"), {"ablations": arms}), "study")
    found = {"GRAPH": StudyGraph(study, pathlib.Path("results")), "STUDY": study, "HOME": "results/smoke"}
    found |= {
        "COMPARED": COMPARED,
        "AGREED": AGREED,
        "SWAPPED": SWAPPED,
        "SCORED_TASKS": SCORED_TASKS,
        "CARDED": CARDED,
        "MEASURED": MEASURED,
        "RESULTS": "results",
        "expand": lambda *given, **named: [],
    }
    # the file contains no rules, so it is plain Python
    return runpy.run_path(str(ROOT / "workflow/rules/paths.smk"), {**found, "pathlib": pathlib})


@pytest.mark.parametrize("case", CASES)
def test_a_run_asks_for_what_its_processes_need(functions: dict[str, Any], case: str) -> None:
    wildcards = SimpleNamespace(ablation=case, seed="0")
    asked = [functions[name](wildcards) for name in ("cores_of", "gpus_of", "launcher_of")]
    assert asked == list(CASES[case][1:])


def test_a_task_runs_in_its_environment(
    functions: dict[str, Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the shell that a rule would run, and look which interpreter it finds and whether it may be a fork."""
    environment_of_task = functions["environment_of_task"]
    outer = environment_of_task.__globals__
    house = tmp_path / "a house"
    (house / "bin").mkdir(parents=True)
    (house / "bin/python").write_text('#!/bin/sh\necho "special, fork ${SPECIATE_WARM_SOCKET:-none}"\n')
    (house / "bin/python").chmod(0o755)
    outer |= {"ENVIRONMENT": "train", "EVALUATION": house, "built_environment": lambda folder: folder.name}
    outer["warm"] = SimpleNamespace(ADDRESS=ADDRESS)
    assert environment_of_task("copying") == ("train", "")
    monkeypatch.setattr(options_of("evaluation/task", "copying"), "environment", "evaluation")
    name, setting = environment_of_task("copying")
    assert name == "a house"
    monkeypatch.setenv("SPECIATE_WARM_SOCKET", "server")
    done = subprocess.run(["bash", "-c", f"{setting} python -m speciate"], capture_output=True, text=True, check=True)
    assert done.stdout == "special, fork none\n"


def test_the_rule_asks_so() -> None:
    rule = RULES["train"]
    for line in ("threads: cores_of\n", "gpu=gpus_of,\n", "launcher=launcher_of,\n"):
        assert line in rule
    assert "{params.launcher} python -m speciate train" in rule
    # evaluation uses one process, on one GPU
    assert "gpu=lambda wildcards: min(1, gpus_of(wildcards))," in RULES["evaluate"]
