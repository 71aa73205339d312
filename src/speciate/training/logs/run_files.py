"""What a run leaves behind: weights, metrics, telemetry, and how it ended; and of a failed one, where and why."""

import json
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy

from speciate.config.run import TrainingSpec
from speciate.io import atomic_write
from speciate.training.checkpoint import weights
from speciate.training.checkpoint.store import EMA, State
from speciate.training.numerics import loss_monitor
from speciate.training.numerics.loss_monitor import FailedRun

MODEL, LAST = "model.safetensors", "last.safetensors"
FAILURE = "failure.json"
"""Beside a failed run's files: the step, its blocks, and where the first number was that is not finite."""


def write(
    output_folder: pathlib.Path,
    state: State,
    training: TrainingSpec,
    facts: dict[str, object],
    timing: dict[str, object],
) -> None:
    """Writes a finished run's files.

    model.safetensors is what is evaluated and started from: the last weights, with `evaluate_ema` their average. Where
    a run keeps an average, the other of the two lies beside it, as ema.safetensors or last.safetensors.
    """
    kept = {MODEL: state.average if training.evaluate_ema else None}
    if state.average is not None:
        kept |= {LAST: None} if training.evaluate_ema else {EMA: state.average}
    for name, average in kept.items():
        with atomic_write(output_folder / name) as temp_path:
            weights.save_weights(state.model, temp_path, average)
    for name in {EMA, LAST} - set(kept):  # of an earlier run
        (output_folder / name).unlink(missing_ok=True)
    with atomic_write(output_folder / "metrics.jsonl") as temp_path:
        temp_path.write_text("".join(state.metrics), encoding="utf-8")
    with atomic_write(output_folder / "telemetry.safetensors") as temp_path, weights.full_disk(output_folder):
        safetensors.numpy.save_file(state.telemetry or {"steps": np.zeros(0, dtype=np.int64)}, temp_path)
    write_json(output_folder / "timing.json", timing)
    write_json(output_folder / "run.json", facts)


def write_json(file: pathlib.Path, content: object) -> None:
    """Writes it, laid out."""
    with atomic_write(file) as temp_path:
        temp_path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_failure(output_folder: pathlib.Path, failure: FailedRun | None) -> None:
    """Writes failure.json, or removes that of an earlier time."""
    if failure is None:
        (output_folder / FAILURE).unlink(missing_ok=True)
    else:
        write_json(output_folder / FAILURE, loss_monitor.plain(failure.report))


def outcome(state: State, failure: FailedRun | None) -> dict[str, Any]:
    """How a run ended, and what was odd on the way."""
    ended: dict[str, Any] = {"state": "finished"}
    if failure is not None:
        ended = {"state": "failed", "step": state.step, "reason": failure.report["reason"]}
    odd = {"skipped": loss_monitor.num_skipped(state.metrics), "spikes": loss_monitor.spikes(state.metrics)}
    return ended | odd | ({} if state.grad_accumulation is None else {"grad_accumulation": state.grad_accumulation})


def refuse_failed(start: pathlib.Path | None) -> None:
    """Raises FailedRun where the run starts from another one that failed."""
    parent = None if start is None else start.with_name("run.json")
    if parent is not None and parent.is_file():
        its = json.loads(parent.read_text(encoding="utf-8"))
        if its.get("state") == "failed":
            reason = f"step 0: starts from {its['ablation']}, seed {its['seed']}, which failed: {its['reason']}"
            raise FailedRun(reason, {"step": 0, "reason": reason})
