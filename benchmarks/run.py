"""Runs every benchmark beside this file, each in a process of its own, and keeps the figures.

A benchmark is a file that prints JSON lines (benchmarks/timing.py): ours and its named peers on the same work, median
CPU milliseconds (or MiB of memory), and ours over each peer's beside the bar that it should stay under. Nothing is
asserted.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

HOME = pathlib.Path(__file__).parent


def names() -> list[str]:
    """The benchmarks: files with a main of their own, this one aside."""
    files = sorted(HOME.glob("*.py"))
    return [file.stem for file in files if file.stem != "run" and "__main__" in file.read_text(encoding="utf-8")]


def processor() -> str:
    """The processor's name as the system tells it, or its architecture."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def measure(name: str) -> list[dict[str, Any]]:
    """The JSON lines of one benchmark, run on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HOME / f"{name}.py")], stdout=subprocess.PIPE, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"bench: error: {name} failed (exit status {done.returncode})")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"benchmarks to run; default: all of {', '.join(names())}")
    chosen = parser.parse_args().name or names()
    machine = re.sub(r"[^a-z0-9]+", "-", f"{processor()} {os.cpu_count()} cores".lower()).strip("-")
    target = HOME / "results" / f"{machine}.json"
    target.parent.mkdir(exist_ok=True)
    kept: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {}
    print(f"{'benchmark':48} {'peer':32} {'ours':>9} {'peer':>9} {'ratio':>6} {'bar':>5}")
    for name in chosen:
        kept[name] = measure(name)
        for line in (line for line in kept[name] if {"cpu_ms", "mib"} & line.keys() and "ours" in line):
            figures_of = line["cpu_ms"] if "cpu_ms" in line else line["mib"]
            for peer, over in line["ours_over"].items():
                figures = (
                    f"{figures_of[line['ours']]:9.1f} {figures_of[peer]:9.1f} {over['ratio']:6.3f} {over['bar']:5.2f}"
                )
                print(f"{line['benchmark'][:48]:48} {peer[:32]:32} {figures}", flush=True)
        target.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(f"bench: wrote {target.relative_to(HOME.parent)}")


if __name__ == "__main__":
    main()
