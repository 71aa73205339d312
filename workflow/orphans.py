"""Adopt what the jobs of a Snakemake that was killed still do.

Its jobs live on: processes on this machine, jobs in the queue of a cluster. A training among them keeps its steps: the
new job of the same run waits for it, and puts its files into the run's folder in seconds (`train --adopt`; the files
are kept beside the checkpoints until Snakemake has seen them in the run's folder, and removed here). A training that
the study no longer wants is asked to stop, and saves. Any other job is ended and made again: it writes its files at
once or not at all, so nothing half-made is left, and it can no longer write while its successor does.

On Slurm a job that has not begun is cancelled, and the successor of one that runs waits in the queue until that has
ended (`--dependency=afterany`), so that it holds no node meanwhile.
"""

import contextlib
import getpass
import logging
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import warm
from failures import jobs_of
from ready import executor_of
from snakemake.iocontainers import ResourceList
from snakemake.persistence import PersistenceBase

from speciate import machine
from speciate.graph.provenance import made_by, short_digest
from speciate.graph.study_graph import StudyGraph
from speciate.machine import FINISHED, read_holder
from speciate.warm import STARTED_BY

PATIENCE = 10.0
"""Seconds that a process has to end before it is killed."""
PROC = pathlib.Path("/proc")
SUBMITTED = pathlib.Path(".snakemake/speciate/submitted.txt")


@dataclass(frozen=True)
class Orphan:
    """A process whose Snakemake is gone."""

    pid: int
    words: list[str]
    """Its command line."""
    worker: int
    """The process that does its work: itself, or the one of which it is a client (src/speciate/warm.py)."""

    @property
    def verb(self) -> str:
        """Return which stage it runs; empty if it is not a stage itself."""
        pairs = zip(self.words, self.words[1:], strict=False)
        return next((word for before, word in pairs if before == "speciate"), "")


def mark() -> str:
    """Return which Snakemake this is and where it works, for `STARTED_BY`."""
    own = machine.this_process()
    place = short_digest(own["host"], own["boot"], own["namespace"], os.getcwd())
    return f"{place} {own['pid']} {own['start']}"


def orphans() -> list[Orphan]:
    """Return the processes on this machine that a Snakemake started in this folder that is gone."""
    here, found = mark().split()[0], {}
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):  # it has ended, or is another user's
            variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            text = next((line for line in variables if line.startswith(f"{STARTED_BY}=")), "")
            place, pid, start = text.partition("=")[2].split()
            parent = {**machine.this_process(), "pid": int(pid), "start": int(start)}
            if place == here and machine.is_alive(parent) is False:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                worker = warm.worker(int(folder.name), (folder / "comm").read_text())
                found[int(folder.name)] = (words[:-1], worker)
    return [Orphan(pid, words, worker if worker in found else pid) for pid, (words, worker) in found.items()]


def adopt(workflow: Any, graph: StudyGraph, home: pathlib.Path, logger: logging.Logger) -> None:
    """Adopt or end what a killed Snakemake has left, before the first job."""
    jobs = list(workflow.dag.needrun_jobs())
    trainings = [job for job in jobs if is_training(job)]
    forget_finished(home, {str(path) for job in trainings for path in job.output})
    forget_when_seen(workflow.dag)
    left, otherwise = orphans(), list(trained_otherwise(trainings, graph))
    unwanted = {facts.get("pid"): run for run, facts in otherwise}
    for orphan in left:
        if orphan.verb == "train" and orphan.worker in unwanted:
            name = unwanted[orphan.worker]
            logger.info(f"{name}: process {orphan.worker} trains another version of it, and is stopped")
            with contextlib.suppress(OSError):
                os.kill(orphan.worker, signal.SIGTERM)
    outputs = {str(path) for job in jobs for path in job.output}
    places = outputs | {os.path.dirname(path) for path in outputs}
    stages = [each for each in left if each.verb not in ("", "train") and names_one(each.words, places)]
    for orphan in stages:
        logger.info(f"{orphan.verb}: process {orphan.pid}, which a killed Snakemake has left, is ended and made again")
    end([pid for each in stages for pid in (each.pid, each.worker)])
    if executor_of(workflow) == "slurm":
        note_submissions()
        numbers = {str(facts["slurm_job"]) for _, facts in otherwise if "slurm_job" in facts}
        queue_behind(workflow, jobs, numbers, logger)


def is_training(job: Any) -> bool:
    """Tell whether a job trains a run, whatever the rule is called where this workflow is a module of another."""
    return "checkpoints" in list(job.params.keys())


def checkpoints_of(job: Any) -> pathlib.Path:
    """Return the folder of all checkpoints of the run that a job trains."""
    return pathlib.Path(job.params.checkpoints) / f"{job.wildcards.ablation}-seed{job.wildcards.seed}"


def trained_otherwise(trainings: Iterable[Any], graph: StudyGraph) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the holder of each run that is being trained from another spec, or with other code."""
    for job in trainings:
        facts = read_holder(checkpoints_of(job))
        if facts:
            wanted = made_by(graph.run(job.wildcards.ablation, int(job.wildcards.seed)))
            if any(facts.get(name) != digest for name, digest in wanted.items()):
                yield f"{job.wildcards.ablation} seed {job.wildcards.seed}", facts


def names_one(words: Iterable[str], places: set[str]) -> bool:
    """Tell whether a command line names one of these files or folders, also as NAME=PATH."""
    return any(word in places or word.partition("=")[2] in places for word in words)


def end(pids: list[int]) -> None:
    """End processes and those that they have started."""
    targets = {each: machine.start_of(each) for pid in pids for each in (pid, *descendants(pid))}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, start in targets.items():
            if start is not None and machine.start_of(pid) == start:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        patience = time.monotonic() + PATIENCE
        while any(start is not None and machine.start_of(pid) == start for pid, start in targets.items()):
            if time.monotonic() > patience:
                break
            time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started."""
    found: list[int] = []
    for file in PROC.glob(f"{pid}/task/*/children"):
        with contextlib.suppress(OSError, ValueError):
            for child in map(int, file.read_text().split()):
                found += [child, *descendants(child)]
    return found


def forget_finished(home: pathlib.Path, to_run: set[str]) -> None:
    """Remove the kept files of finished runs whose own folders have them, unless their jobs are about to run."""
    for folder in home.glob(f"checkpoints/*/*/{FINISHED}"):
        ablation, _, seed = folder.parents[1].name.rpartition("-seed")
        run_folder = home / "runs" / ablation / f"seed{seed}"
        if str(run_folder / "run.json") not in to_run:
            forget(folder, run_folder)


def forget(folder: pathlib.Path, run_folder: pathlib.Path) -> None:
    """Remove a folder of kept files if the run's folder has the same run."""
    with contextlib.suppress(OSError):
        if (folder / "run.json").read_bytes() == (run_folder / "run.json").read_bytes():
            shutil.rmtree(folder.parent)
            folder.parents[1].rmdir()


def forget_when_seen(dag: Any) -> None:
    """Remove the kept files of each run once Snakemake has seen all files of the run's job."""
    finish = dag.finish

    async def finish_and_forget(job: Any, *rest: Any, **named: Any) -> Any:
        result = await finish(job, *rest, **named)
        for each in jobs_of(job):
            if is_training(each):
                for folder in checkpoints_of(each).glob(f"*/{FINISHED}"):
                    forget(folder, pathlib.Path(each.params.folder))
        return result

    dag.finish = finish_and_forget


def queue_behind(workflow: Any, jobs: list[Any], unwanted: set[str], logger: logging.Logger) -> None:
    """Cancel jobs of Slurm that wait to do what is to be done, and let new ones wait for those that do it.

    Args:
        workflow: the workflow that is about to start.
        jobs: what it has to do.
        unwanted: jobs of Slurm that train another version of a run, which are cancelled, and save.
        logger: where to say so.
    """
    queued = queue()
    if queued is None:
        logger.warning("squeue does not answer; jobs of Slurm that a killed Snakemake may have left are not waited for")
        return
    noted = submitted(queued)
    before = {
        str(job.output[0]): noted[str(job.output[0])] for job in jobs if job.output and str(job.output[0]) in noted
    }
    cancelled = {number for number in before.values() if queued[base(number)] == "PENDING"}
    cancelled |= {number for number in unwanted if base(number) in queued}
    after = {path: base(number) for path, number in before.items()}
    awaited = sorted(set(after.values()) - {base(number) for number in cancelled})
    if cancelled:
        logger.info(f"jobs of Slurm that a killed Snakemake has left, cancelled: {', '.join(sorted(cancelled))}")
        subprocess.run(["scancel", *sorted(cancelled)], check=False)
    if awaited:
        logger.info(f"jobs of Slurm that a killed Snakemake has left, waited for: {', '.join(awaited)}")
    submit_after(workflow.scheduler, after)


def note_submissions() -> None:
    """Note which job of a cluster makes which file; a job that runs removes Snakemake's own note of that."""
    started = PersistenceBase.started

    def started_and_noted(self: Any, job: Any, external_jobid: str | None = None) -> None:
        started(self, job, external_jobid)
        if external_jobid is not None and job.output:
            SUBMITTED.parent.mkdir(parents=True, exist_ok=True)
            with SUBMITTED.open("a", encoding="utf-8") as notes:
                notes.write(f"{external_jobid} {job.output[0]}\n")

    PersistenceBase.started = started_and_noted


def submitted(queued: Mapping[str, str]) -> dict[str, str]:
    """Return the jobs in the queue by the first file that they make, and keep the notes of these alone."""
    try:
        pairs = [line.split(" ", 1) for line in SUBMITTED.read_text(encoding="utf-8").splitlines() if " " in line]
    except FileNotFoundError:
        return {}
    found = {path: number for number, path in pairs if base(number) in queued}
    SUBMITTED.write_text("".join(f"{number} {path}\n" for path, number in found.items()), encoding="utf-8")
    return found


def base(number: str) -> str:
    """Return the number of a job of Slurm without its place in an array."""
    return number.partition("_")[0]


def queue() -> dict[str, str] | None:
    """Return the state of the user's jobs of Slurm that have not ended, by number; None if it cannot be told."""
    command = ["squeue", "--noheader", "--format", "%i %T", "--user", getpass.getuser()]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return {base(number): state for number, _, state in (line.strip().partition(" ") for line in lines)}


def submit_after(scheduler: Any, after: Mapping[str, str]) -> None:
    """Let the first submission of each job wait for the earlier job of Slurm that makes the same file."""
    run: Callable[..., Any] = scheduler.run
    left = dict(after)

    def run_after(jobs: Iterable[Any], executor: Any = None) -> Any:
        jobs = list(jobs)
        for job in jobs:
            numbers = {left.pop(str(path)) for each in jobs_of(job) for path in each.output if str(path) in left}
            if numbers:
                extra = str(job.resources.get("slurm_extra") or "")
                depend(job, f"{extra} --dependency=afterany:{':'.join(sorted(numbers))}".strip())
        return run(jobs, executor) if executor is not None else run(jobs)

    scheduler.run = run_after


def depend(job: Any, extra: str) -> None:
    """Give a job, or a group of jobs, these further options of sbatch."""
    resources = {**dict(job.resources.items()), "slurm_extra": extra}
    job._resources = resources if job.is_group() else ResourceList(fromdict=resources)
