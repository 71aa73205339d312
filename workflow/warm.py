"""Offer jobs on this machine a process that has imported what they need; src/speciate/warm.py tells how it works.

Snakemake's benchmarks count the processes that the job's shell has started. The process that does the work of a job is
a fork of its stage's server, so here it is counted with its client, whose name tells its number.
"""

import os
from typing import Any

from ready import executor_of
from snakemake.benchmark import BenchmarkTimer

from speciate.warm import ADDRESS, NAME

SWITCH = "SPECIATE_WARM"
"""Variable of the user's shell: 0 lets every job import what it needs itself."""


def offer(workflow: Any) -> dict[str, str]:
    """Return the variables that let jobs be run by servers; none where they run on other machines, or cannot."""
    if os.environ.get(SWITCH) == "0" or not workflow.is_main_process or executor_of(workflow) != "local":
        return {}
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # not Linux, or one before 5.3
        return {}
    count_workers()
    return {ADDRESS: f"speciate-{os.urandom(8).hex()}"}


def worker(pid: int, name: str) -> int:
    """Return the process that does the work of a process: another one if its name says that it is a client."""
    kind, _, number = name.strip().partition(" ")
    return int(number) if kind == NAME and number.isdigit() else pid


def count_workers() -> None:
    """Let Snakemake's benchmarks count what works for the clients among a job's processes."""
    import psutil

    class Shell(psutil.Process):  # type: ignore[misc]
        def children(self, recursive: bool = False) -> list[psutil.Process]:
            found = super().children(recursive)
            for client in list(found):
                try:
                    pid = worker(client.pid, client.name())
                    if pid != client.pid:
                        process = psutil.Process(pid)
                        found += [process, *process.children(recursive=True)]
                except psutil.Error:  # it has ended
                    continue
            return found

    prepare = BenchmarkTimer.__init__

    def prepare_for_workers(self: Any, pid: int, *rest: Any, **named: Any) -> None:
        prepare(self, pid, *rest, **named)
        self.main = Shell(pid)

    BenchmarkTimer.__init__ = prepare_for_workers
