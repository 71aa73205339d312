"""A training killed at random points, also in the middle of a save, ends with the bits of an undisturbed one."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from speciate import train as verb
from speciate.provenance import sha256
from speciate.spec import RunSpec, dump

HERE = pathlib.Path(__file__).parent
RESULTS = ("model.safetensors", "metrics.jsonl", "telemetry.safetensors", "ema.safetensors", "best.safetensors")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(pathlib.Path(verb.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def spec(run_spec: Callable[..., RunSpec]) -> RunSpec:
    settings = {"num_steps": 90, "checkpoint_every": 1, "accumulation": 2, "ema": 0.9, "keep_best": True}
    return run_spec(training={**settings, "keep_steps": [3, 40], "device": "cpu"})


def digests(folder: pathlib.Path) -> dict[str, str]:
    snapshots = sorted(folder.glob("snapshots/*"))
    assert len(snapshots) == 2
    return {str(file.relative_to(folder)): sha256(file) for file in (*(folder / name for name in RESULTS), *snapshots)}


def command(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path) -> list[str]:
    (folder / "spec.json").write_text(dump(spec))
    given = ["--spec", "spec.json", "--mixture-folder", str(mixture), "--output-folder", "run"]
    return [sys.executable, "-m", "speciate.train", *given, "--checkpoint-folder", "checkpoints"]


def undisturbed(spec: RunSpec, mixture: pathlib.Path, folder: pathlib.Path) -> dict[str, str]:
    whole = spec.model_copy(update={"training": spec.training.model_copy(update={"checkpoint_every": 1000})})
    folder.mkdir()
    done = subprocess.run(
        command(whole, mixture, folder), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return digests(folder / "run")


def test_killed_twenty_times_it_ends_with_the_same_bits(
    mixture: pathlib.Path, tmp_path: pathlib.Path, spec: RunSpec
) -> None:
    (tmp_path / "spec.json").write_text(dump(spec))
    given = [str(tmp_path / "spec.json"), str(mixture), str(tmp_path), "7", "10"]
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), *given], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    log = (tmp_path / "log").read_text()
    assert done.returncode == 0, done.stderr + log
    told = json.loads(done.stdout)
    assert told["last"] == 0, log
    assert len(told["ended"]) == 20
    for number, place, status in told["ended"]:
        assert status == (-signal.SIGKILL if number == "SIGKILL" else 75), (number, place, log)
    assert digests(tmp_path / "run") == undisturbed(spec, mixture, tmp_path / "whole")
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_the_same_through_the_command_line(mixture: pathlib.Path, tmp_path: pathlib.Path, spec: RunSpec) -> None:
    draw = random.Random(11)
    called = command(spec, mixture, tmp_path)
    numbers = [signal.SIGKILL, signal.SIGTERM] * 10
    draw.shuffle(numbers)
    for number in numbers:
        process = subprocess.Popen(called, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        before = set(tmp_path.glob("checkpoints/*/*/step*"))
        while set(tmp_path.glob("checkpoints/*/*/step*")) == before:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == (-number if number == signal.SIGKILL else 75), errors
    done = subprocess.run(called, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "run") == undisturbed(spec, mixture, tmp_path / "whole")
