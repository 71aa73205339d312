"""Test whole studies on a Slurm of several nodes, on its nodes' own software and in the pinned image."""

import json
import pathlib
from collections.abc import Mapping

import pytest
import yaml
from tests.cluster.clone import ROOT, Clone
from tests.cluster.scenarios import options
from tests.cluster.slurm import Slurm, call

pytestmark = pytest.mark.cluster
PIN = yaml.safe_load((ROOT / "containers/images.lock.yaml").read_text())["study"]
SUBMISSIONS = 45
"""The most submissions that the smoke study may take."""


def test_a_whole_study_on_slurm(slurm: Slurm, work: pathlib.Path, expected: Mapping[str, str]) -> None:
    clone = Clone.make(work / "nodes")
    clone.run(*options())
    assert clone.digests() == expected
    assert set(slurm.states(clone.folder)) == {"COMPLETED"}
    job = json.loads((clone.home / "runs/arm/seed0/run.json").read_text())["job"]
    assert slurm.submitted(clone.folder)[job["slurm_job"]]["nodes"] in ("n1", "n2")


def test_the_smoke_study_on_two_nodes_in_the_image(
    slurm: Slurm, apptainer: None, work: pathlib.Path, smoke: Mapping[str, str]
) -> None:
    clone = Clone.make(work / "smoke-on-slurm", "studies/smoke.yaml")
    # shares of a minute instead of ten, so that there are enough for both nodes
    clone.run(*options(profile="slurm-container"), "--resources", "share_minutes=1", "runtime=1440")
    assert clone.digests() == smoke
    jobs = slurm.submitted(clone.folder)
    assert {fields["nodes"] for fields in jobs.values()} == {"n1", "n2"}
    assert set(slurm.states(clone.folder)) == {"COMPLETED"}
    assert len(jobs) <= SUBMISSIONS
    runs = [json.loads(file.read_text()) for file in clone.home.glob("runs/*/seed*/run.json")]
    assert len(runs) == 14
    assert {run["job"]["slurm_job"] for run in runs} <= set(jobs)
    assert {pathlib.Path(run["job"]["image"]).resolve() for run in runs} == {(ROOT / PIN["file"]).resolve()}


def test_what_is_edited_while_a_job_waits_changes_nothing(
    slurm: Slurm, tiny: Clone, work: pathlib.Path, expected: Mapping[str, str]
) -> None:
    clone = tiny.copy(work / "edited")
    run = "results/tiny/runs/arm/seed0/"
    process = clone.start(*options("late"), targets=(f"{run}likelihood.parquet",))
    slurm.waiting(clone.folder)
    study, module = clone.folder / clone.study, clone.folder / "src/speciate/training/loop.py"
    wanted, code = study.read_text(), module.read_text()
    study.write_text(wanted.replace("base:\n", "base:\n  optimizer: {kind: adamw, lr: 0.1}\n"))
    module.write_text(f"raise RuntimeError('edited while a job waited')\n{code}")
    assert "train" in clone.run("--dry-run", "--cores", "1", targets=(f"{run}model.safetensors",))
    call("scontrol", "update", "PartitionName=late", "State=UP")
    clone.finish(process)
    made = {file: digest for file, digest in clone.digests().items() if file.startswith(run)}
    assert made == {file: expected[file] for file in made} and len(made) >= 8
    assert "train" in clone.run("--dry-run", "--cores", "1", targets=(f"{run}model.safetensors",))
    study.write_text(wanted)
    module.write_text(code)
    assert "Nothing to be done" in clone.run("--dry-run", "--cores", "1", targets=(f"{run}likelihood.parquet",))


def test_a_study_through_any_command_that_submits(
    slurm: Slurm, tiny: Clone, work: pathlib.Path, expected: Mapping[str, str]
) -> None:
    clone = tiny.copy(work / "generic")
    run = "results/tiny/runs/arm/seed0/"
    often = ("--seconds-between-status-checks", "2")
    clone.run("--workflow-profile", "profiles/cluster-generic", *often, targets=(f"{run}likelihood.parquet",))
    made = {file: digest for file, digest in clone.digests().items() if file.startswith(run)}
    assert made == {file: expected[file] for file in made} and len(made) >= 8
    assert slurm.states(clone.folder) and set(slurm.states(clone.folder)) == {"COMPLETED"}
