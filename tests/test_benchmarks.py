"""Test that `make gpu-check` reports a missing GPU, and that a table names what missed its target."""

import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_gpu_check_says_where_there_is_no_gpu() -> None:
    # this interpreter replaces the developers' environment, which is not built again
    command = ["make", "--no-print-directory", "-o", "dev", "gpu-check", f"STUDY={pathlib.Path(sys.executable).parent}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (0, "gpu-check: torch sees no GPU here; nothing was run\n"), done.stderr


@pytest.fixture(scope="module")
def runner() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/run.py"))


def test_a_row_says_whether_its_bar_was_met(runner: dict[str, Any]) -> None:
    over = {
        "one": {"ratio": 0.5, "bar": 0.625},
        "one, wall": {"ratio": 0.9, "bar": 0.625, "of": "wall_ms", "peer": "one"},
        "peak": {"ratio": 0.7, "at_least": 0.75},
    }
    line = {"benchmark": "a step", "cpu_ms": {"one": 20.0, "two": 10.0}, "wall_ms": {"one": 30.0, "two": 27.0}}
    rows = list(runner["table"]([{**line, "ours": "two", "ours_over": over}, {"benchmark": "no peer", "mib": {}}]))
    assert [row.split()[3:] for row in rows] == [
        ["10.0", "20.0", "0.500", "<=", "0.625", "met"],
        ["wall", "27.0", "30.0", "0.900", "<=", "0.625", "missed"],
        ["10.0", "0.700", ">=", "0.750", "missed"],
    ]


def test_rows_are_kept_beside_those_of_other_benchmarks(runner: dict[str, Any], tmp_path: pathlib.Path) -> None:
    target = tmp_path / "results" / "machine.json"
    runner["keep"](target, "b", [{"ratio": 1}])
    runner["keep"](target, "a", [{"ratio": 2}])
    runner["keep"](target, "b", [{"ratio": 3}])
    assert json.loads(target.read_text()) == {"a": [{"ratio": 2}], "b": [{"ratio": 3}]}


def test_every_benchmark_says_what_it_compares(runner: dict[str, Any]) -> None:
    for name in runner["names"]():
        assert f"python benchmarks/{name}.py" in (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8")
