"""What can happen to a training on a cluster. Each function disturbs the one run of a clone, and brings it to its end.

Each waits until the run has saved a checkpoint, disturbs it, and lets Snakemake finish. Whether the result is the
undisturbed one is the tests' question (test_disturbed.py).
"""

import os
import signal
from collections.abc import Callable

from tests.cluster.clone import Clone, until
from tests.cluster.slurm import Slurm, call, trainers, with_kill

OFTEN = ("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2")
"""Ask Slurm for jobs' states more often than one would on a cluster that others use, too."""
TARGETS = ("results/tiny/runs/arm/seed0/model.safetensors",)


def options(partition: str = "main", profile: str = "slurm") -> tuple[str, ...]:
    """Return the options of Snakemake that submit to a partition."""
    where = ("--default-resources", f"slurm_partition={partition}", "mem_mb=2000", "runtime=60")
    return ("--workflow-profile", f"profiles/{profile}", *OFTEN, *where)


def begin(clone: Clone, slurm: Slurm, partition: str = "main") -> str:
    """Start the run on Slurm; return the number of its job once it has saved a checkpoint."""
    process = clone.start(*options(partition), targets=TARGETS)

    def saved() -> bool:
        assert process.poll() is None, clone.said()
        return bool(clone.steps())

    until("a checkpoint", saved)
    return slurm.running(clone.folder)


def end(clone: Clone) -> None:
    """Wait until Snakemake has ended well."""
    clone.finish(clone.processes[-1])


def killed_trainer(clone: Clone, slurm: Slurm) -> None:
    """Kill the training, as a full memory does: its job fails, and Snakemake submits another."""
    begin(clone, slurm)
    for pid in trainers(clone.folder):
        with_kill(pid)
    end(clone)
    assert "FAILED" in slurm.states(clone.folder)


def cancelled(clone: Clone, slurm: Slurm) -> None:
    """Cancel the job; Snakemake submits another."""
    call("scancel", begin(clone, slurm))
    end(clone)
    assert "CANCELLED" in slurm.states(clone.folder)


def requeued(clone: Clone, slurm: Slurm) -> None:
    """Put the job back into the queue; it starts again under its number."""
    job = begin(clone, slurm)
    call("scontrol", "requeue", job)
    slurm.at_once(job)
    end(clone)
    assert slurm.jobs()[job]["restarts"] == "1"


def preempted(clone: Clone, slurm: Slurm) -> None:
    """Submit a job that is more important, and needs the run's node."""
    job = begin(clone, slurm, "low")
    call("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    slurm.at_once(job)
    end(clone)
    assert slurm.jobs()[job]["restarts"] == "1"


def node_died(clone: Clone, slurm: Slurm) -> None:
    """Kill the job's node and all that runs on it; Slurm notices, and starts the job on another."""
    job = begin(clone, slurm, "doomed")
    assert slurm.jobs()[job]["nodes"] == "n3"
    slurm.kill_node("n3")
    slurm.at_once(job)
    assert slurm.jobs()[job]["nodes"] == "n2"
    end(clone)


def timed_out(clone: Clone, slurm: Slurm) -> None:
    """Let the job hang until its time is over; Snakemake submits another."""
    job = begin(clone, slurm)
    for pid in trainers(clone.folder):
        os.kill(pid, signal.SIGSTOP)
    call("scontrol", "update", f"JobId={job}", "EndTime=now")
    end(clone)
    assert "TIMEOUT" in slurm.states(clone.folder)


def snakemake_killed(clone: Clone, slurm: Slurm) -> None:
    """Kill Snakemake, whose job lives on; the same command again continues."""
    job = begin(clone, slurm)
    os.killpg(clone.processes[-1].pid, signal.SIGKILL)
    clone.processes[-1].wait()
    assert slurm.jobs()[job]["state"] == "RUNNING"
    clone.run(*options(), targets=TARGETS)


def snakemake_killed_here(clone: Clone, slurm: Slurm) -> None:
    """Kill Snakemake on this machine, where its training lives on as an orphan; the same command again continues."""
    process = clone.start("--cores", "1", targets=TARGETS)
    until("a checkpoint", clone.steps)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert trainers(clone.folder), "the training ended with Snakemake"
    clone.run("--cores", "1", targets=TARGETS)


SCENARIOS: dict[str, Callable[[Clone, Slurm], None]] = {
    # those that wait for Slurm come first
    "node_died": node_died,
    "timed_out": timed_out,
    "preempted": preempted,
    "requeued": requeued,
    "cancelled": cancelled,
    "killed_trainer": killed_trainer,
    "snakemake_killed": snakemake_killed,
    "snakemake_killed_here": snakemake_killed_here,
}
