"""Test that a study goes on after Snakemake itself was killed, beside what its jobs still do."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from tests.workflow.conftest import ROOT, Workspace

STUDY = """extends: smoke.yaml
keep: {ablations: [dense], hypotheses: []}
study: orphan
question: Does a study go on when Snakemake is killed?
seeds: [0]
analysis: {reference: dense, controls: []}
base: {training: {num_steps: STEPS, checkpoint_every: 20}, optimizer: {lr: 0.001}}
"""
HOME = pathlib.Path("results/orphan")
RUN = HOME / "runs/dense/seed0"
CHECKPOINTS = HOME / "checkpoints/dense-seed0"
PATIENCE = 240


def digests(folder: pathlib.Path) -> dict[str, str]:
    """Return the digest of each file that a run's training writes and that does not tell of its job."""
    names = ("model.safetensors", "metrics.jsonl", "telemetry.safetensors", "spec.json", "tokenizer/tokenizer.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


class Study:
    """A study of one run, in a workspace that has its data."""

    def __init__(self, workspace: Workspace, steps: int) -> None:
        self.workspace, self.folder = workspace, workspace.folder
        self.file = self.folder / "studies" / "orphan.yaml"
        self.file.write_text(STUDY.replace("STEPS", str(steps)))

    def command(self, target: pathlib.Path = RUN / "run.json") -> list[str]:
        return ["--configfile", "studies/orphan.yaml", "--cores", "2", "--", str(target)]

    def start(self, target: pathlib.Path = RUN / "run.json") -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.Popen(
            [str(ROOT / ".envs/host/bin/snakemake"), *self.command(target)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def trainer(self) -> int:
        """Return the process that trains the run, by what it has written; 0 if there is none."""
        try:
            return int(json.loads((self.folder / CHECKPOINTS / "holder.json").read_text())["pid"])
        except (OSError, ValueError):
            return 0

    def kill(self, after: Callable[[], bool]) -> int:
        """Start the study, kill Snakemake alone once it is so far, and return the process that still trains."""
        process = self.start()
        until(after, process)
        pid = self.trainer()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()  # the trainer holds its other end
        return pid

    def run(self) -> str:
        """Run the study to its end; return what was said."""
        done = self.workspace.snakemake(*self.command())
        assert done.returncode == 0, done.stdout
        return done.stdout

    def has_checkpoint(self) -> bool:
        return bool(list((self.folder / CHECKPOINTS).glob("*/step*/manifest.json")))

    def has_finished(self) -> bool:
        return (self.folder / CHECKPOINTS).is_dir() and bool(list((self.folder / CHECKPOINTS).glob("*/finished")))

    def facts(self) -> dict[str, object]:
        content: dict[str, object] = json.loads((self.folder / RUN / "run.json").read_text())
        return content


def until(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < patience
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Tell whether a process lives; process 0 does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stage(verb: str, output: pathlib.Path) -> int:
    """Return the process of a stage that writes a file; 0 if there is none."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if str(output) in words and words[2:4] == ["speciate", verb]:
            return int(folder.name)
    return 0


@pytest.fixture
def study(finished: Workspace) -> Iterator[Study]:
    made = Study(finished, 150)
    shutil.rmtree(made.folder / HOME, ignore_errors=True)
    yield made
    until(lambda: not lives(made.trainer()))
    made.file.unlink()
    shutil.rmtree(made.folder / HOME, ignore_errors=True)


@pytest.fixture(scope="module")
def undisturbed(finished: Workspace) -> dict[str, str]:
    """Return the digests of the same run, which nothing has disturbed."""
    study = Study(finished, 150)
    study.run()
    found = digests(study.folder / RUN)
    assert study.facts()["job"] == {"attempt": 1}
    assert not list((study.folder / CHECKPOINTS.parent).iterdir())  # nothing is kept of a run that is done
    shutil.rmtree(study.folder / HOME)
    return found


def test_a_living_training_is_waited_for_and_its_steps_are_kept(study: Study, undisturbed: dict[str, str]) -> None:
    pid = study.kill(study.has_checkpoint)
    os.kill(pid, signal.SIGSTOP)  # it goes on when its successor waits, however slow the machine is
    process, log = study.start(), study.folder / HOME / "logs/train/dense/seed0.log"
    try:
        until(lambda: log.is_file() and "waits for it" in log.read_text(), process)
    finally:
        os.kill(pid, signal.SIGCONT)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert re.search(
        r"Snakemake, process \d+ on \S+, since .+, study orphan, was killed here; its lock is removed", said
    )
    assert f"dense seed 0: process {pid} on " in said
    assert "an earlier attempt has finished it; its files are put back" in said
    assert digests(study.folder / RUN) == undisturbed
    assert study.facts()["job"] == {"attempt": 1}  # it was never begun again
    assert not list((study.folder / CHECKPOINTS.parent).iterdir())
    assert "Nothing to be done" in study.run()


def test_a_run_that_was_finished_meanwhile_is_put_back(study: Study, undisturbed: dict[str, str]) -> None:
    pid = study.kill(study.has_checkpoint)
    until(lambda: study.has_finished() and not lives(pid))
    times = (study.folder / RUN / "timing.json").read_bytes()
    said = study.run()
    assert "an earlier attempt has finished it" in said
    assert " step " not in said
    assert digests(study.folder / RUN) == undisturbed
    assert (study.folder / RUN / "timing.json").read_bytes() == times
    assert not list((study.folder / CHECKPOINTS.parent).iterdir())


@pytest.mark.slow
def test_a_training_that_was_killed_too_resumes(study: Study, undisturbed: dict[str, str]) -> None:
    pid = study.kill(study.has_checkpoint)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid))
    said = study.run()
    assert "resumes at step " in said
    assert digests(study.folder / RUN) == undisturbed
    assert study.facts()["job"] == {"attempt": 2}


def test_a_training_that_the_study_no_longer_wants_saves_and_makes_room(study: Study) -> None:
    Study(study.workspace, 20000)
    pid = study.kill(study.has_checkpoint)
    Study(study.workspace, 30)
    said = study.run()
    assert f"dense seed 0: process {pid} trains another version of it, and is stopped" in said
    assert "starts from scratch: spec: training.num_steps is 30, was 20000" in said
    assert not lives(pid)
    assert study.facts()["num_steps"] == 30


def test_two_at_a_time_are_refused_and_a_dry_run_is_not(study: Study) -> None:
    process = study.start()
    until(study.has_checkpoint, process)
    os.kill(study.trainer(), signal.SIGSTOP)
    try:
        done = study.workspace.snakemake(*study.command())
        assert done.returncode == 1
        who = rf"is in use by Snakemake, process {process.pid} on \S+, since .+, study orphan; wait for it or end it,"
        assert re.search(who, done.stdout), done.stdout
        assert "Traceback" not in done.stdout
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    planned = study.workspace.snakemake("--dry-run", *study.command())
    assert "cannot be locked" not in planned.stdout
    assert (study.folder / ".snakemake/locks/0.output.lock").is_file()  # a dry run removes nothing
    os.kill(study.trainer(), signal.SIGCONT)


@pytest.mark.slow
def test_another_stage_is_ended_and_made_again(study: Study) -> None:
    measured = RUN / "measured.json"
    process = study.start(measured)
    until(lambda: bool(stage("evaluate", measured)), process)
    pid = stage("evaluate", measured)
    os.kill(pid, signal.SIGSTOP)  # it would have written its files at any later time
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    done = study.workspace.snakemake(*study.command(measured))
    assert done.returncode == 0, done.stdout
    assert f"evaluate: process {pid}, which a killed Snakemake has left, is ended and made again" in done.stdout
    assert not lives(pid)
    assert (study.folder / measured).is_file()


SLURM = {
    "sbatch": 'echo "sbatch $*" >> ASKED; exit 1',  # what is asked of it is all that is looked at here
    "squeue": 'case "$*" in *--user*) printf "7 RUNNING\\n8 PENDING\\n";; esac',
    "scancel": 'echo "scancel $*" >> ASKED',
    "scontrol": 'echo "MinJobAge = 300 sec"',
    **dict.fromkeys(("sinfo", "sacct", "sacctmgr"), "exit 0"),
}


def test_jobs_of_slurm_are_waited_for_or_cancelled(
    study: Study, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, line in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line.replace('ASKED', str(tmp_path / 'asked'))}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    study.file.write_text(study.file.read_text().replace("seeds: [0]", "seeds: [0, 1]"))
    runs = [study.folder / HOME / f"runs/dense/seed{seed}" for seed in (0, 1)]
    places = [run.relative_to(study.folder) for run in runs]
    notes = study.folder / ".snakemake/speciate/submitted.txt"
    notes.write_text(f"7 {places[0] / 'spec.json'}\n8 {places[1] / 'spec.json'}\n9 elsewhere/spec.json\n")
    options = ["--configfile", "studies/orphan.yaml", "--workflow-profile", "profiles/slurm", "--set-resources"]
    study.workspace.snakemake(*options, "train:runtime=5", "--", *(str(place / "run.json") for place in places))
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == "scancel 8"  # it had not begun
    # both runs share a submission, whose successor waits for the job that runs and for the one that was cancelled
    first = next(line for line in asked if "--job-name train.dense.0+1 " in line)
    assert "--dependency=afterany:7:8 " in first
    assert len(notes.read_text().splitlines()) == 2
