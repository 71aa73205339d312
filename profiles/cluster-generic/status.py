#!/usr/bin/env python3
"""Print `running`, `success` or `failed` for a job: `status.py NUMBER`.

For another scheduler, change `state_of`.
"""

import pathlib
import subprocess
import sys

LOGS = pathlib.Path(".snakemake/cluster_logs")
FAILED = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}


def state_of(number: str) -> str:
    """Return Slurm's state of a job; empty if Slurm has forgotten it, `UNKNOWN` if Slurm does not answer."""
    query = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={number}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "UNKNOWN"
    if done.returncode:
        return "" if "Invalid job id" in done.stderr else "UNKNOWN"
    return done.stdout.strip().partition("\n")[0]


def status_of(number: str) -> str:
    """Return the word that Snakemake wants."""
    state = state_of(number)
    if state == "COMPLETED":
        return "success"
    if state in FAILED:
        return "failed"
    if state:
        return "running"
    end = LOGS / f"{number}.end"
    return "success" if end.is_file() and end.read_text().strip() == "0" else "failed"


if __name__ == "__main__":
    print(status_of(sys.argv[1]))
