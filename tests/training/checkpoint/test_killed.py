"""Test that a training killed at random points, even during a save, ends bit-identically to an undisturbed one."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

from speciate.config.run import RunSpec, canonical_json
from speciate.io import sha256
from speciate.stages import train as verb

KILLED = pathlib.Path(__file__).with_name("killed.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(pathlib.Path(verb.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
RESULTS = {
    *("model.safetensors", "metrics.jsonl", "telemetry.safetensors", "ema.safetensors", "best.safetensors"),
    *("spec.json", "snapshots/step3.safetensors", "snapshots/step40.safetensors"),
}


def digests(folder: pathlib.Path) -> dict[str, str]:
    # a kill may leave hidden files, which nothing reads
    files = (file for file in folder.rglob("[!.]*") if file.is_file() and file.name not in ("timing.json", "run.json"))
    return {str(file.relative_to(folder)): sha256(file) for file in files}


def test_killed_twenty_times_it_ends_with_the_same_bits(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: Callable[..., RunSpec]
) -> None:
    settings = {"num_steps": 60, "checkpoint_every": 2, "grad_accumulation": 2, "ema": 0.9, "keep_best": True}
    spec = run_spec(training={**settings, "keep_steps": [3, 40], "device": "cpu"})
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    command = [sys.executable, str(KILLED), str(tmp_path / "spec.json"), str(mixture), str(tmp_path), "7"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, log = json.loads(done.stdout), (tmp_path / "log").read_text()
    # each training was killed by the intended signal, inside the place that was drawn
    for kill in told["ended"]:
        assert kill["where"] is not None, (kill, log)
        assert kill["status"] == (75 if kill["signal"] == "SIGTERM" else -signal.Signals[kill["signal"]]), (kill, log)
    assert Counter(kill["signal"] for kill in told["ended"]) == {"SIGKILL": 10, "SIGTERM": 8, "SIGXFSZ": 2}
    assert Counter(kill["place"] for kill in told["ended"]) == {"training": 9, "saving": 9, "ending": 2}
    assert len({kill["where"] for kill in told["ended"]}) > 10
    assert told["last"] == 0, log
    assert "resumes at step" in log
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert set(digests(tmp_path / "whole")) == RESULTS
    facts = {name: json.loads((tmp_path / name / "run.json").read_text()) for name in ("parts", "whole")}
    # all else in it is the same
    assert [facts[name]["job"].pop("attempt") for name in ("parts", "whole")] == [len(told["ended"]) + 1, 1]
    assert facts["parts"] == facts["whole"]
    assert not list((tmp_path / "parts-checkpoints").iterdir())
