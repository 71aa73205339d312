"""Checkpoints: everything that the next step depends on, written aside and renamed, so that none is ever half there.

A checkpoint is a folder `step<n>` that holds the model's weights (safetensors), the optimizer's state and torch's
random state (loadable with weights_only), the telemetry so far, the metrics so far, and a manifest with the sha256 of
each file. The folder above is named by the run's identity: spec, code and data. A changed spec is another folder.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from speciate.provenance import sha256
from speciate.training.average import Average

Arrays = dict[str, npt.NDArray[np.generic]]
EMA = "ema.safetensors"
"""The average of the weights, in a checkpoint and beside a finished run's model."""


@dataclass
class State:
    """What a training run is between two steps."""

    step: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    metrics: list[str]
    """Lines of metrics.jsonl so far."""
    telemetry: Arrays
    """What the observer has seen so far."""
    average: Average | None = None
    """The moving average of the weights, where the run keeps one."""


@contextlib.contextmanager
def exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Holds a run's folder for one process, for as long as the block or the process lives.

    Raises:
        ValueError: another process trains this run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another process is training this run; wait for it or end it") from None
        yield


def save(folder: pathlib.Path, state: State) -> None:
    """Writes `folder/step<n>` and removes older checkpoints once it is complete."""
    aside, target = folder / f".step{state.step}", folder / f"step{state.step}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    safetensors.torch.save_file(_weights(state.model), aside / "model.safetensors")
    if state.average is not None:
        safetensors.torch.save_file(state.average.weights, aside / EMA)
    torch.save({"optimizer": state.optimizer.state_dict(), "random": torch.get_rng_state()}, aside / "train_state.pt")
    safetensors.numpy.save_file(state.telemetry, aside / "telemetry.safetensors")
    (aside / "metrics.jsonl").write_text("".join(state.metrics), encoding="utf-8")
    digests = {file.name: sha256(file) for file in sorted(aside.iterdir())}
    manifest = {"step": state.step, "sha256": digests, "torch": torch.__version__, "threads": torch.get_num_threads()}
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    for file in aside.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    for old in _checkpoints(folder)[:-1]:
        shutil.rmtree(old)


def restore(folder: pathlib.Path, state: State) -> bool:
    """Puts the newest intact checkpoint of `folder` into `state`; False where there is none.

    Raises:
        ValueError: checkpoints are there but none is intact; the message says what is damaged.
    """
    damaged: list[str] = []
    for checkpoint in reversed(_checkpoints(folder)):
        problem = _damage(checkpoint)
        if problem:
            damaged.append(problem)
            continue
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        load_weights(state.model, checkpoint / "model.safetensors")
        if state.average is not None:
            state.average.load(safetensors.torch.load_file(checkpoint / EMA))
        rest = torch.load(checkpoint / "train_state.pt", weights_only=True)
        state.optimizer.load_state_dict(rest["optimizer"])
        torch.set_rng_state(rest["random"])
        state.telemetry.update(safetensors.numpy.load_file(checkpoint / "telemetry.safetensors"))
        state.metrics[:] = (checkpoint / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        state.step = manifest["step"]
        return True
    if damaged:
        raise ValueError(f"{folder}: no checkpoint is intact ({'; '.join(damaged)}); remove the folder to start anew")
    return False


def save_weights(model: nn.Module, file: pathlib.Path, average: Average | None = None) -> None:
    """Writes a model's weights and buffers as safetensors; a tensor that two names share is written once.

    With an average of its parameters, that stands in their place; buffers stay the model's own.
    """
    safetensors.torch.save_file(_weights(model) | (average.weights if average else {}), file)


def load_weights(model: nn.Module, file: pathlib.Path) -> None:
    """Loads what `save_weights` wrote. Raises ValueError where the file is not of this model, naming the tensors."""
    try:
        weights = safetensors.torch.load_file(file)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{file}: is no weights file: {error}") from None
    expected = _weights(model)
    odd = sorted(set(weights) ^ set(expected)) or sorted(
        name for name in expected if weights[name].shape != expected[name].shape
    )
    if odd:
        raise ValueError(f"{file}: does not hold this model's weights; they differ in {', '.join(odd[:5])}")
    model.load_state_dict(weights, strict=False)


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict without names that share another's memory (a tied head)."""
    seen: set[int] = set()
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            weights[name] = tensor.contiguous()
    return weights


def _checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("step*"), key=lambda path: int(path.name.removeprefix("step")))


def _damage(checkpoint: pathlib.Path) -> str:
    """What is wrong with a checkpoint; empty where its files are those that its manifest names."""
    try:
        digests = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))["sha256"]
        changed = [name for name, digest in digests.items() if sha256(checkpoint / name) != digest]
    except (OSError, ValueError, KeyError) as error:
        return f"{checkpoint.name}: {error}"
    return f"{checkpoint.name}: {', '.join(changed)} changed" if changed else ""
