"""Test the training rule's command line when its whole process group is signalled: `tee` must not end the run."""

import ast
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from speciate.cli import execute
from speciate.config.run import RunSpec, canonical_json
from speciate.io import sha256
from speciate.stages import train as verb
from speciate.training.distributed.signals import StopRequest

RULE = pathlib.Path(__file__).parents[3] / "workflow/rules/train.smk"
RESULTS = ("model.safetensors", "metrics.jsonl", "telemetry.safetensors")
REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STEP = 3
"""The place that the signal arrives in."""
START = f"""
import time
from speciate import cli
from speciate.training import loop
from speciate.training.logs import progress
from speciate.training.distributed.signals import StopRequest
update, remember, asked = loop.train_step, StopRequest._remember, []
def noting(stop, number, frame):
    remember(stop, number, frame)
    asked.append(number)
def waiting(context, state):
    if state.step == {STEP}:
        cli.log("waits")
        begun = time.monotonic()
        while not asked and time.monotonic() < begun + 60:
            time.sleep(0.01)
        time.sleep(0.1)  # whatever else the signal ends has ended
    return update(context, state)
progress.SECONDS_BETWEEN_LINES = 0.0  # a line is due at every step, this one's among them
loop.train_step, StopRequest._remember = waiting, noting
cli.main()
"""


def command_line(folder: pathlib.Path, mixture: pathlib.Path) -> str:
    """Return the command line that Snakemake gives to bash."""
    rule = re.search(r"^rule train:.*?^    shell:\n(.*?)(?=^\S|\Z)", RULE.read_text(), re.MULTILINE | re.DOTALL)
    assert rule is not None
    shell: str = ast.literal_eval(f"({rule[1]})")
    params = {"launcher": "", "mixture": mixture, "folder": folder / "run", "checkpoints": folder / "kept"}
    params["start"] = ""
    shell = shell.replace("{params.content:q}", "''")
    params["spec"] = folder / "spec.json"
    shell = shell.replace(" --tokenizer-folder {params.tokenizer}", "")  # the mixture here has none
    return "set -euo pipefail; " + shell.format(params=SimpleNamespace(**params), log=folder / "log")


class Never(StopRequest):
    """Never ask to stop, and leave this process's signals alone."""

    def __init__(self) -> None:
        self.received = None


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    """Return an environment in which `python -m speciate train` runs the training of START."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/train.py").write_text(START)
    program = tmp_path / "bin/python"
    program.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {tmp_path}/bin/train.py "$@"\n')
    program.chmod(0o755)
    paths = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(pathlib.Path(verb.__file__).parents[2]),
    }
    return {**os.environ, **paths, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Undo what a training in this process does to signals."""
    before = {number: signal.getsignal(number) for number in REQUESTS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", REQUESTS, ids=lambda number: number.name)
def test_a_signal_to_the_whole_group_saves_and_the_same_command_continues(
    mixture: pathlib.Path,
    tmp_path: pathlib.Path,
    run_spec: Callable[..., RunSpec],
    environment: dict[str, str],
    number: signal.Signals,
) -> None:
    spec = run_spec(training={"checkpoint_every": 100, "device": "cpu"})
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    line, log = command_line(tmp_path, mixture), tmp_path / "log"
    started = ["bash", "-c", line]
    pipeline = subprocess.Popen(started, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    while not log.exists() or "waits" not in log.read_text():
        assert pipeline.poll() is None, log.read_text()
        time.sleep(0.01)
    os.killpg(pipeline.pid, number)
    # with pipefail it is the training's own exit status, since tee ends well
    assert pipeline.wait(60) == 75, log.read_text()
    assert f"{number.name} received; saved, and the same command resumes the run" in log.read_text()
    assert [saved.name for saved in (tmp_path / "kept").glob("*/*/step*")] == [f"step{STEP + 1}"]
    # run the same command in this process, which is quicker
    execute(line.partition("python -m speciate ")[2].partition(" 2>&1")[0].split())
    # the files of the run are kept until the workflow has seen them, and beside them the number of attempts
    assert sorted(path.name for path in (tmp_path / "kept").glob("*/*/*")) == ["attempts", "finished"]
    assert verb.train(spec, mixture, tmp_path / "whole", tmp_path / "unused", stop=Never())
    for name in RESULTS:
        assert sha256(tmp_path / "run" / name) == sha256(tmp_path / "whole" / name), name
