"""Test that a result belongs to the tree that made it: dry runs, edits and lost records while a study runs."""

import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.workflow.conftest import ROOT, Workspace

from speciate.config.run import RunSpec, canonical_json, read_spec
from speciate.config.study import read_study
from speciate.graph.provenance import short_digest

LIVE = """extends: smoke.yaml
keep: {ablations: [dense], hypotheses: []}
study: live
question: Is a run what it was when it began?
seeds: [0]
analysis: {reference: dense, controls: []}
base: {training: {num_steps: 400}, optimizer: {lr: 0.001}}
"""
RUN = pathlib.Path("results/live/runs/dense/seed0")


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Return all files of a folder but Snakemake's own."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if ".snakemake" not in path.parts and "__pycache__" not in path.parts and ".envs" not in path.parts
    }


@pytest.fixture
def live(finished: Workspace) -> Iterator[Workspace]:
    """Provide the finished workspace with a study of one longer run, whose data are there."""
    study = finished.folder / "studies" / "live.yaml"
    study.write_text(LIVE)
    yield finished
    study.unlink()


def command(workspace: Workspace, *arguments: str) -> list[str]:
    snakemake = str(ROOT / ".envs/host/bin/snakemake")
    return [snakemake, "--configfile", "studies/live.yaml", "--cores", "1", *arguments, "--", str(RUN / "run.json")]


def plan(workspace: Workspace) -> str:
    """Return what a dry run says."""
    done = workspace.snakemake(*command(workspace, "--dry-run")[1:])
    assert done.returncode == 0, done.stdout
    return done.stdout


def start(workspace: Workspace) -> subprocess.Popen[str]:
    """Start the run, and return when it has trained some steps."""
    log = workspace.folder / "results/live/logs/train/dense/seed0.log"
    log.unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen(command(workspace), cwd=workspace.folder, env=environment, **streams)  # type: ignore[call-overload]
    while not (log.is_file() and "step " in log.read_text()):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    return process  # type: ignore[no-any-return]


def made_by(workspace: Workspace) -> dict[str, str]:
    record: dict[str, str] = json.loads((workspace.folder / RUN / "run.json").read_text())["made_by"]
    return record


def test_a_result_belongs_to_the_tree_that_made_it(live: Workspace) -> None:
    study = live.folder / "studies" / "live.yaml"
    before = content(live.folder)
    assert "train" in plan(live)
    assert content(live.folder) == before  # a dry run writes nothing
    wanted = read_study(study).run("dense", 0)

    process = start(live)
    # while it trains: another learning rate, other code, and a look at what would be done
    study.write_text(LIVE.replace("0.001", "0.002"))
    live.edit("src/speciate/training/loop.py", "import ", "import nothing_of_this_name\nimport ")
    assert "train" in plan(live)
    live.edit("src/speciate/training/loop.py", "import nothing_of_this_name\n", "")
    output = process.communicate()[0]
    assert process.returncode == 0, output

    trained = read_spec(RunSpec, live.folder / RUN / "spec.json")
    assert trained == wanted
    assert made_by(live)["spec"] == short_digest(canonical_json(wanted))
    assert "params have changed" in plan(live).lower() or "train (ablation dense, seed 0) runs again" in plan(live)
    study.write_text(LIVE)
    assert "Nothing to be done" in plan(live)

    # Snakemake's records are lost, and the study has changed
    (live.folder / ".snakemake/metadata").rename(live.folder / ".snakemake/kept")
    try:
        assert "Nothing to be done" in plan(live)
        study.write_text(LIVE.replace("0.001", "0.003"))
        said = plan(live)
        assert "train (ablation dense, seed 0) runs again: made with another spec (" in said
        live.edit("src/speciate/training/loop.py", "import ", "EDITED = 1\nimport ")
        assert "; made with other code (" in plan(live)
        live.edit("src/speciate/training/loop.py", "EDITED = 1\n", "")
    finally:
        (live.folder / ".snakemake/kept").rename(live.folder / ".snakemake/metadata")


def test_a_changed_run_that_was_stopped_starts_anew_and_the_old_one_can_go_on(live: Workspace) -> None:
    study = live.folder / "studies" / "live.yaml"
    study.write_text(LIVE.replace("num_steps: 400", "num_steps: 4000"))
    process = start(live)
    os.killpg(process.pid, signal.SIGTERM)  # Snakemake ends after its job, and the job saves and ends
    process.communicate()
    checkpoints = live.folder / "results/live/checkpoints/dense-seed0"
    (first,) = (path for path in checkpoints.iterdir() if path.is_dir())
    assert list(first.glob("step*"))
    study.write_text(LIVE.replace("num_steps: 400", "num_steps: 30"))
    done = live.snakemake(*command(live)[1:])
    assert done.returncode == 0, done.stdout
    assert "starts from scratch: spec: training.num_steps is 30, was 4000, since the checkpoint of step " in done.stdout
    assert [path for path in checkpoints.iterdir() if path.is_dir()] == [first]
    assert list(first.glob("step*"))


PREFIX = """
import pathlib, frozen_start
from snakemake.shell import shell
frozen_start.set_prefix({"WORD": "a b"}, pathlib.Path("/tree"), for_all=FOR_ALL)
print(shell._process_prefix)
"""


@pytest.mark.parametrize("for_all", [True, False])
@pytest.mark.parametrize(("keep", "seen"), [({}, "unset"), ({"SPECIATE_KEEP_KERNELS": "1"}, "Haswell")])
def test_a_job_does_not_see_which_kernels_a_users_shell_prefers(keep: dict[str, str], seen: str, for_all: bool) -> None:
    shell = {"PATH": os.environ["PATH"], "OPENBLAS_CORETYPE": "Haswell", **keep}
    found = subprocess.run(
        [ROOT / ".envs/host/bin/python", "-c", PREFIX.replace("FOR_ALL", str(for_all))],
        env={**shell, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'workflow'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    prefix = found.stdout.strip().replace("{{", "{").replace("}}", "}")
    command = f'{prefix} : python -m speciate train; echo "${{OPENBLAS_CORETYPE:-unset}} $WORD"'
    done = subprocess.run(["bash", "-c", command], env=shell, capture_output=True, text=True, check=True)
    assert done.stdout == f"{seen} a b\n"
