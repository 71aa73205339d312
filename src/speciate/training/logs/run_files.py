"""The files of a finished run: weights, metrics, telemetry, and how it ended; for a failed run, where and why."""

import json
import math
import pathlib
import shutil
from typing import Any

import numpy as np
import safetensors.numpy

from speciate.config.run import RunSpec, TrainingSpec, canonical_json
from speciate.data.blocks import TrainBlocks
from speciate.data.tokens.manifest import FILES
from speciate.io import atomic_write
from speciate.model.transformer import count_parameters
from speciate.training.checkpoint.state import EMA, MODEL, State
from speciate.training.checkpoint.weights import disk_errors, save_weights
from speciate.training.numerics.loss_monitor import FailedRun, num_skipped, spikes

LAST = "last.safetensors"
FAILURE = "failure.json"
"""Next to a failed run's files: the step, its blocks, and where the first number was that is not finite."""


def write(
    output_folder: pathlib.Path,
    state: State,
    training: TrainingSpec,
    *,
    metadata: dict[str, object],
    timing: dict[str, object],
) -> None:
    """Write a finished run's files.

    model.safetensors is what is evaluated and what other runs start from: the last weights, or with `evaluate_ema`
    their moving average. If a run keeps an average, the other of the two is written next to it, as ema.safetensors or
    last.safetensors.
    """
    files = {MODEL: state.ema if training.evaluate_ema else None}
    if state.ema is not None:
        files |= {LAST: None} if training.evaluate_ema else {EMA: state.ema}
    for name, ema in files.items():
        with atomic_write(output_folder / name) as temp_path:
            save_weights(state.model, temp_path, None if ema is None else ema.weights)
    with atomic_write(output_folder / "metrics.jsonl") as temp_path:
        temp_path.write_text("".join(state.metrics), encoding="utf-8")
    with atomic_write(output_folder / "telemetry.safetensors") as temp_path, disk_errors(output_folder):
        safetensors.numpy.save_file(state.telemetry or {"steps": np.zeros(0, dtype=np.int64)}, temp_path)
    write_json(output_folder / "timing.json", timing)
    write_json(output_folder / "run.json", metadata)


def write_tokenizer(folder: pathlib.Path, tokenizer_folder: pathlib.Path | None) -> None:
    """Copy a fitted tokenizer into `folder`, if there is one to copy."""
    for name in FILES if tokenizer_folder is not None else ():
        assert tokenizer_folder is not None
        with atomic_write(folder / name) as temp_path:
            shutil.copyfile(tokenizer_folder / name, temp_path)


def write_spec(output_folder: pathlib.Path, spec: RunSpec) -> None:
    """Write the spec that a run was trained with, whatever the study file says by now."""
    with atomic_write(output_folder / "spec.json") as temp_path:
        temp_path.write_text(canonical_json(spec), encoding="utf-8")


def write_json(file: pathlib.Path, content: object) -> None:
    """Write indented JSON."""
    with atomic_write(file) as temp_path:
        temp_path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_failure(output_folder: pathlib.Path, failure: FailedRun | None) -> None:
    """Write failure.json, or remove an earlier one."""
    if failure is None:
        (output_folder / FAILURE).unlink(missing_ok=True)
    else:
        write_json(output_folder / FAILURE, _finite_json(failure.report))


def _finite_json(value: Any) -> Any:
    """Turn numbers that are not finite into text, since strict JSON has none of them."""
    if isinstance(value, dict):
        return {key: _finite_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_json(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def run_size(spec: RunSpec, state: State, blocks: TrainBlocks) -> dict[str, Any]:
    """Return what run.json says of a run's name, parameters, steps, tokens and epochs."""
    settings = spec.training
    total, active = count_parameters(state.model)
    return {
        "ablation": spec.ablation,
        "seed": spec.seed,
        "parameters_total": total,
        "parameters_active": active,
        "num_steps": settings.num_steps,
        "train_tokens": settings.num_steps * settings.blocks_per_step * blocks.block_length,
        "epochs": settings.num_steps * settings.blocks_per_step / len(blocks),
    }


def outcome(state: State, failure: FailedRun | None) -> dict[str, Any]:
    """Return what run.json says of how a run ended, and of skipped steps, spikes and forced accumulation."""
    end: dict[str, Any] = {"state": "finished"}
    if failure is not None:
        end = {"state": "failed", "step": state.step, "reason": failure.report["reason"]}
    events = {"skipped": num_skipped(state.metrics), "spikes": spikes(state.metrics)}
    return end | events | ({} if state.grad_accumulation is None else {"grad_accumulation": state.grad_accumulation})


def check_start(start: pathlib.Path | None) -> None:
    """Raise FailedRun if the run starts from another run that failed."""
    file = None if start is None else start.with_name("run.json")
    if file is not None and file.is_file():
        parent = json.loads(file.read_text(encoding="utf-8"))
        if parent.get("state") == "failed":
            name = f"{parent['ablation']}, seed {parent['seed']}"
            reason = f"step 0: the run starts from {name}, which failed: {parent['reason']}"
            raise FailedRun(reason, {"step": 0, "reason": reason})
