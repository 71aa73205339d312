"""Name the machine that computes: its processor, instruction set, and number of threads.

A sum of floating-point numbers depends on its order, and libraries choose the order by instruction set and threads. So
another processor gives other last bits, which a training amplifies. Nothing here enters a result or a digest: it is
written into logs, run.json, checkpoints and the study's manifest.

And tell whether a process that has written down who it is still lives. A number alone says little: numbers are used
again, every machine and every container counts its own, and a restart begins anew. So a process writes down its number
with its start (in clock ticks), its machine's name, the machine's present start, and its PID namespace.
"""

import functools
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

CPU_INFO = pathlib.Path("/proc/cpuinfo")
PROC = pathlib.Path("/proc")
HOLDER = "holder.json"
"""The file in which a process that trains a run says who it is, in the run's folder of checkpoints."""
FINISHED = "finished"
"""The folder beside a run's checkpoints that holds a finished run's files (training/checkpoint/run_results.py)."""


@functools.cache
def processor() -> str:
    """Return the model name of the processor, as the operating system gives it; at least its architecture."""
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return platform.machine()
    try:
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = (line.partition(":") for line in lines)
    facts = {name.strip().lower(): value.strip() for name, _, value in pairs if value.strip()}
    if "model name" in facts:
        return facts["model name"]
    parts = [f"{name} {facts[name]}" for name in ("cpu implementer", "cpu part") if name in facts]
    return " ".join([platform.processor() or platform.machine(), *parts])


def describe() -> dict[str, Any]:
    """Return processor, instruction set and threads of this process, as its libraries use them.

    The instruction set is torch's where torch is loaded, else numpy's; "" where neither is.
    """
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    instructions, threads = "", os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None:
        instructions, threads = torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())
    elif numpy is not None:
        found = numpy.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", [])
        instructions = found[-1] if found else ""
    return {
        "processor": processor(),
        "instructions": instructions,
        "threads": int(threads) if threads.isdecimal() else os.cpu_count() or 1,
    }


def in_words(machine: dict[str, Any]) -> str:
    """Return what `describe` returned as a phrase."""
    parts = [machine["processor"], machine["instructions"]]
    threads = machine["threads"]
    return ", ".join([*(part for part in parts if part), f"{threads} thread{'' if threads == 1 else 's'}"])


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


def process_in_words(process: Mapping[str, Any]) -> str:
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


def read_holder(folder: pathlib.Path) -> dict[str, Any]:
    """Return what the process that trains a run has told of itself in the run's folder of checkpoints; or nothing."""
    try:
        content = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def job() -> dict[str, str]:
    """Return the image in which this process runs, and its job of Slurm and how often that was requeued, if any."""
    names = {
        "image": "APPTAINER_CONTAINER",
        "slurm_job": "SLURM_JOB_ID",
        "requeued": "SLURM_RESTART_COUNT",
        "attempt": "SPECIATE_ATTEMPT",
    }
    return {key: os.environ[name] for key, name in names.items() if name in os.environ}
