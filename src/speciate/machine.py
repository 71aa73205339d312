"""Name the machine that computes: its processor, instruction set, and number of threads.

A sum of floating-point numbers depends on its order, and libraries choose the order by instruction set and threads. So
another processor gives other last bits, which a training amplifies. Nothing here enters a result or a digest: it is
written into logs, run.json, checkpoints and the study's manifest.
"""

import functools
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

CPU_INFO = pathlib.Path("/proc/cpuinfo")


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
