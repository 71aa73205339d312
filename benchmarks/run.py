"""Run every benchmark in this folder, each in its own process, and keep the figures.

A benchmark is a file that prints JSON lines (benchmarks/timing.py): ours and its named peers on the same work, in
median CPU milliseconds (or a GPU's, or MiB of memory), and the ratio of ours over each peer's next to its bar. `bar`
is the largest value that the ratio should have, `at_least` the smallest. A ratio of other figures names them: `"of":
"wall_ms"`. Nothing is asserted.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import torch

HOME = pathlib.Path(__file__).parent


def names() -> list[str]:
    """Return the names of the benchmarks: the files with a main, except this one."""
    files = sorted(HOME.glob("*.py"))
    return [file.stem for file in files if file.stem != "run" and "__main__" in file.read_text(encoding="utf-8")]


def processor() -> str:
    """Return the processor's name, or its architecture if the system gives no name."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.machine()


def measure(name: str) -> list[dict[str, Any]]:
    """Run one benchmark on one thread, and return its JSON lines."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HOME / f"{name}.py")], stdout=subprocess.PIPE, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"bench: error: {name} failed (exit status {done.returncode})")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def machine() -> str:
    """Return the name under which this machine's results are kept: its processor, its cores and its GPU."""
    gpu = f" {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return re.sub(r"[^a-z0-9]+", "-", f"{processor()} {os.cpu_count()} cores{gpu}".lower()).strip("-")


def table(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Return a row for each ratio: ours, the peer's, the ratio, its bar, and whether that was met."""
    for line in lines:
        usual = next((unit for unit in ("cpu_ms", "cuda_ms", "mib") if unit in line), None)
        for name, over in line.get("ours_over", {}).items():
            figures = line.get(over.get("of", usual), {})
            both = (figures.get(line["ours"]), figures.get(over.get("peer", name)))
            shown = " ".join(f"{'':9}" if figure is None else f"{figure:9.1f}" for figure in both)
            low = "at_least" in over
            bar = over["at_least" if low else "bar"]
            met = over["ratio"] >= bar if low else over["ratio"] <= bar
            bound = f"{over['ratio']:6.3f} {'>=' if low else '<='} {bar:5.3f} {'met' if met else 'missed'}"
            yield f"{line['benchmark'][:48]:48} {name[:32]:32} {shown} {bound}"


def keep(target: pathlib.Path, name: str, lines: list[dict[str, Any]]) -> None:
    """Add a benchmark's lines to the file, and keep what is already there."""
    kept: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {}
    kept[name] = lines
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", help=f"benchmarks to run; default: all of {', '.join(names())}")
    chosen = parser.parse_args().name or names()
    target = HOME / "results" / f"{machine()}.json"
    print(f"{'benchmark':48} {'peer':32} {'ours':>9} {'peer':>9} {'ratio':>6} {'bar':>8}")
    for name in chosen:
        lines = measure(name)
        for row in table(lines):
            print(row, flush=True)
        if lines:  # none where a benchmark found nothing to measure on, as without a GPU
            keep(target, name, lines)
    print(f"bench: wrote {target.relative_to(HOME.parent)}")


if __name__ == "__main__":
    main()
