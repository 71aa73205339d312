"""Tell whether a process that has written down who it is still lives. It changes no byte of any result.

A process number alone says little: numbers are used again, every machine and every container counts its own, and a
restart begins anew. So a process writes down its number with its start (in clock ticks), its machine's name, the
machine's present start, and its PID namespace.
"""

import os
import pathlib
import platform
import time
from collections.abc import Mapping
from typing import Any

PROC = pathlib.Path("/proc")


def this_process() -> dict[str, Any]:
    """Return who this process is, for `is_alive` in another."""
    return {**_place(), "pid": os.getpid(), "start": start_of(os.getpid()), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def is_alive(process: Mapping[str, Any]) -> bool | None:
    """Return whether a process lives; None if that cannot be told from here, as of one on another machine."""
    here, there = _place(), {name: process.get(name) for name in _place()}
    if there["host"] != here["host"]:
        return None
    if there["boot"] != here["boot"]:
        return False  # this machine has been restarted since
    if there["namespace"] != here["namespace"]:
        return None
    pid = process.get("pid")
    if not isinstance(pid, int):
        return None
    start = start_of(pid)
    if start is not None:
        return start == process.get("start")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def in_words(process: Mapping[str, Any]) -> str:
    """Return which process it is and since when, for a message."""
    if not process:
        return "another process"
    job = f" (Slurm job {process['slurm_job']})" if "slurm_job" in process else ""
    return f"process {process.get('pid')} on {process.get('host')}{job}, since {process.get('since')}"


def _place() -> dict[str, str]:
    """Return where this process runs: where process numbers mean the same."""
    boot, namespace = "", ""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink(PROC / "self/ns/pid")
    except OSError:
        pass  # not Linux
    return {"host": platform.node(), "boot": boot, "namespace": namespace}


def _fields(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name, which may hold anything; empty if there is none."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _is_zombie(pid: int) -> bool:
    return _fields(pid)[:1] in (["Z"], ["X"])


def start_of(pid: int) -> int | None:
    """Return when a living process began, in clock ticks since the machine did; None if it does not live."""
    fields = _fields(pid)
    return None if len(fields) < 20 or fields[0] in "ZX" else int(fields[19])
