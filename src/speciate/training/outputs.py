"""What a run leaves behind: weights, metrics, telemetry, and how it ended; and of a failed one, where and why."""

import json
import pathlib
import platform
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch

from speciate.training import checkpoint, health
from speciate.training.checkpoint import EMA, State
from speciate.training.health import FailedRun
from speciate.verb import writing

FAILURE = "failure.json"
"""Beside a failed run's files: the step, its blocks, and where the first number was that is not finite."""


def write(output_folder: pathlib.Path, state: State, facts: dict[str, object], timing: dict[str, object]) -> None:
    """Writes a finished run's files."""
    with writing(output_folder / "model.safetensors") as aside:
        checkpoint.save_weights(state.model, aside)
    # of a run without an average none is left from an earlier one
    (output_folder / EMA).unlink(missing_ok=True)
    if state.average is not None:
        with writing(output_folder / EMA) as aside:
            checkpoint.save_weights(state.model, aside, state.average)
    with writing(output_folder / "metrics.jsonl") as aside:
        aside.write_text("".join(state.metrics), encoding="utf-8")
    with writing(output_folder / "telemetry.safetensors") as aside, checkpoint.full_disk(output_folder):
        safetensors.numpy.save_file(state.telemetry or {"steps": np.zeros(0, dtype=np.int64)}, aside)
    write_json(output_folder / "timing.json", timing)
    write_json(output_folder / "run.json", facts)


def versions() -> dict[str, str]:
    """What computed this run; the torch version names its build."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def write_json(file: pathlib.Path, content: object) -> None:
    """Writes it, laid out."""
    with writing(file) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_failure(output_folder: pathlib.Path, failure: FailedRun | None) -> None:
    """Writes failure.json, or removes that of an earlier time."""
    if failure is None:
        (output_folder / FAILURE).unlink(missing_ok=True)
    else:
        write_json(output_folder / FAILURE, health.plain(failure.report))


def outcome(state: State, failure: FailedRun | None) -> dict[str, Any]:
    """How a run ended, and what was odd on the way."""
    ended: dict[str, Any] = {"state": "finished"}
    if failure is not None:
        ended = {"state": "failed", "step": state.step, "reason": failure.report["reason"]}
    odd = {"skipped": health.num_skipped(state.metrics), "spikes": health.spikes(state.metrics)}
    return ended | odd | ({} if state.accumulation is None else {"accumulation": state.accumulation})
