"""Checkpoints: everything that the next step depends on, written completely or not at all.

A checkpoint is a folder `step<n>`. It holds the model's weights (safetensors), the optimizer's state and torch's random
state (loadable with weights_only), the telemetry and the metrics so far, and a manifest. The manifest holds the sha256
of each file, the run's identity (its whole spec; digests of data, vocabulary and start), versions, threads, and a
digest of itself. The folders above are named by the run, and by a key that stands for its identity and its code:

    <ablation>-seed<k>/training.lock     held by the one process that trains the run
    <ablation>-seed<k>/<key>/step<n>/    with another identity or other code, the run starts from scratch in another
    <ablation>-seed<k>/<key>/attempts    how often its training has been begun or resumed

A checkpoint is written under a hidden name, synced and renamed. A router's noise is the one thing that a step draws
from torch's generator, so the generator's state is saved. All other randomness is addressed by seed and step.
"""

import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from speciate.io import atomic_write, sha256, share_modes
from speciate.machine import processor
from speciate.training.checkpoint.disk import make_folder, sync
from speciate.training.checkpoint.identity import Identity, identity_changes
from speciate.training.checkpoint.sharded import load_sharded
from speciate.training.checkpoint.state import EMA, MODEL, State
from speciate.training.checkpoint.weights import disk_errors, load_weights, save_tensors, unique_tensors
from speciate.training.distributed.ranks import ALONE, Ranks

KEPT_DAYS = 30
"""Days for which the checkpoints of an attempt stay that another identity or other code has replaced."""


def save(folder: pathlib.Path, state: State, identity: Identity | None = None, keep: int = 2) -> None:
    """Write `folder/step<n>`; once it is complete, remove all but the newest `keep` checkpoints.

    Raises:
        OSError: the checkpoint cannot be written, for example because the disk is full; older ones are still there.
    """
    hidden, target = folder / f".step{state.step}", folder / f"step{state.step}"
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        make_folder(folder)
        hidden.mkdir()
        _write_files(hidden, state, identity)
        share_modes(hidden)
        for file in (*hidden.iterdir(), hidden):
            sync(file)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one: the run would have resumed from an intact one
        hidden.rename(target)
        for parent in (folder, folder.parent):  # the folder itself may be new
            sync(parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    for old in _checkpoints(folder)[:-keep]:
        # hidden first: the process may be killed halfway through removing the files
        shutil.rmtree(old.rename(old.with_name(f".{old.name}")))


def _write_files(folder: pathlib.Path, state: State, identity: Identity | None) -> None:
    """Write every file of a checkpoint, the manifest last."""
    optimizer: dict[str, object] = {}
    if state.shards is None:
        save_tensors(unique_tensors(state.model), folder / MODEL)
        if state.ema is not None:
            save_tensors(state.ema.weights, folder / EMA)
        optimizer = state.optimizer.state_dict()
    else:
        for shard in state.shards.iterdir():
            shard.rename(folder / shard.name)
    random = torch.get_rng_state() if state.rng_states is None else state.rng_states
    _save_pickle(
        {"optimizer": optimizer, "random": random, "grad_accumulation": state.grad_accumulation},
        folder / "train_state.pt",
    )
    with disk_errors(folder):
        safetensors.numpy.save_file(state.telemetry, folder / "telemetry.safetensors")
    (folder / "metrics.jsonl").write_text("".join(state.metrics), encoding="utf-8")
    manifest = {
        "step": state.step,
        "sha256": {file.name: sha256(file) for file in sorted(folder.iterdir())},
        "identity": identity,
        "spec_digest": None if identity is None else _digest(identity["spec"]),
        **environment(),
    }
    text = json.dumps({**manifest, "digest": _digest(manifest)}, indent=1) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def restore(
    folder: pathlib.Path,
    state: State,
    *,
    ranks: Ranks = ALONE,
    identity: Identity | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> bool:
    """Load the newest intact checkpoint of `folder` into `state`; return False if there is none.

    Args:
        folder: the folder of the run and its code.
        state: altered in place.
        ranks: the processes that train the run now; each of them calls this.
        identity: what the run is; None: any checkpoint will do.
        log: receives a line if a checkpoint is damaged, and if it was written in another environment.

    Raises:
        ValueError: there are checkpoints but none is intact, or the checkpoint belongs to another run; the message
            names what is damaged or what has changed.
    """
    checkpoint, manifest, damage = newest_intact(folder)
    if checkpoint is None:
        if damage:
            raise ValueError(
                f"{folder}: no checkpoint is intact ({'; '.join(damage)}); remove the folder to start from scratch"
            )
        return False
    if identity is not None and manifest["identity"] is not None:
        check_identity(folder, manifest, identity)
    if damage:
        log(f"{folder}: damaged checkpoint ({'; '.join(damage)}); falling back to {checkpoint.name}")
    differences = environment_changes(manifest)
    if differences:
        log(
            f"{checkpoint}: was written with {', '.join(differences)}; results may differ in the last bits from here on"
        )
    train_state = torch.load(checkpoint / "train_state.pt", weights_only=True, map_location="cpu")
    if train_state["optimizer"]:
        load_weights(state.model, checkpoint / MODEL)
        if state.ema is not None:
            state.ema.load(safetensors.torch.load_file(checkpoint / EMA))
        state.optimizer.load_state_dict(train_state["optimizer"])
    else:
        load_sharded(checkpoint, state, ranks)
    ranks.set_rng_states(train_state["random"])
    state.grad_accumulation = train_state["grad_accumulation"]
    state.telemetry.update(safetensors.numpy.load_file(checkpoint / "telemetry.safetensors"))
    state.metrics[:] = (checkpoint / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    state.step = manifest["step"]
    return True


def environment() -> dict[str, Any]:
    """Return what the bits depend on besides the run and its code: library versions, processor and threads."""
    versions = {"torch": torch.__version__, "numpy": np.__version__, "safetensors": safetensors.__version__}
    return {
        "versions": versions,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
    }


def environment_changes(manifest: Mapping[str, Any]) -> list[str]:
    """Return, in words, what differs between the environment of a checkpoint and the current one."""
    then, now = ({**part["versions"], **part} for part in (manifest, environment()))
    names = [name for name in ("torch", "numpy", "threads", "processor", "instruction set") if name in then]
    return [f"{name} {then[name]} (now {now[name]})" for name in names if then[name] != now[name]]


def newest_intact(folder: pathlib.Path) -> tuple[pathlib.Path | None, dict[str, Any], list[str]]:
    """Return the newest intact checkpoint of a folder, its manifest, and what is wrong with each newer one."""
    damage: list[str] = []
    for checkpoint in reversed(_checkpoints(folder)):
        manifest, problem = _verify(checkpoint)
        if not problem:
            return checkpoint, manifest, damage
        damage.append(problem)
    return None, {}, damage


def check_identity(folder: pathlib.Path, manifest: Mapping[str, Any], identity: Identity) -> None:
    """Refuse to resume a checkpoint of another run, by a ValueError that names what has changed."""
    changes = identity_changes(manifest["identity"], identity)
    if changes:
        lines = [f"{folder}: holds checkpoints of this run up to step {manifest['step']}, but something has changed:"]
        lines += [f"  {change}" for change in changes]
        raise ValueError("\n".join([*lines, "  undo the change to resume, or remove the folder to start from scratch"]))


def earlier_attempt(folder: pathlib.Path, key: str, identity: Identity) -> str:
    """Look for checkpoints of this run with another identity or of other code, in the folders next to that of `key`.

    Returns:
        A sentence for the reader about the newest of them, if there is one and none of this key; otherwise "".
    """
    if _checkpoints(folder / key):
        return ""
    found = [(other, *newest_intact(other)[:2]) for other in _other_keys(folder, key)]
    attempts = [(other, manifest) for other, checkpoint, manifest in found if checkpoint is not None]
    if not attempts:
        return ""
    other, manifest = max(attempts, key=lambda attempt: attempt[0].stat().st_mtime)
    changes = [] if manifest["identity"] is None else identity_changes(manifest["identity"], identity)
    what = "; ".join(changes) or "the code has changed"
    return f"{what}, since the checkpoint of step {manifest['step']}, which stays in {other}"


def remove_old_attempts(folder: pathlib.Path, key: str, days: float = KEPT_DAYS) -> None:
    """Remove the checkpoints of other keys than `key` that have not changed for so many days."""
    for other in _other_keys(folder, key):
        if other.stat().st_mtime < time.time() - days * 24 * 3600:
            shutil.rmtree(other, ignore_errors=True)


def count_attempt(folder: pathlib.Path) -> int:
    """Note that the training in `folder` is begun, or resumed; return how often that has happened, this time too."""
    file = folder / "attempts"
    before = file.read_text(encoding="ascii") if file.is_file() else ""
    number = (int(before) if before.strip().isdecimal() else 0) + 1
    make_folder(folder)
    with atomic_write(file) as temp_path:
        temp_path.write_text(f"{number}\n", encoding="ascii")
    return number


def remove_checkpoints(folder: pathlib.Path) -> None:
    """Remove the checkpoints of a run whose files are in its finished folder."""
    for checkpoint in _checkpoints(folder):
        shutil.rmtree(checkpoint.rename(checkpoint.with_name(f".{checkpoint.name}")), ignore_errors=True)


def _other_keys(folder: pathlib.Path, key: str) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name != key)


def _checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return a folder's checkpoints, the oldest first."""
    return sorted(folder.glob("step*"), key=lambda path: int(path.name.removeprefix("step")))


def _digest(content: Mapping[str, Any]) -> str:
    """Return ten hex digits that stand for JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def _verify(checkpoint: pathlib.Path) -> tuple[dict[str, Any], str]:
    """Return a checkpoint's manifest, and what is wrong with its files; "" if all are those that it names."""
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
        if manifest.pop("digest") != _digest(manifest):
            return {}, f"{checkpoint.name}: manifest.json changed"
        changed = [name for name, digest in manifest["sha256"].items() if sha256(checkpoint / name) != digest]
    except OSError as error:
        return {}, f"{checkpoint.name}: {pathlib.Path(error.filename or '').name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}, f"{checkpoint.name}: manifest.json is not a manifest"
    return manifest, f"{checkpoint.name}: {', '.join(changed)} changed" if changed else ""


def _save_pickle(content: dict[str, Any], file: pathlib.Path) -> None:
    """Save with torch.save. On a full disk it raises an error of its container, which becomes the system's here."""
    failures: list[OSError] = []
    with file.open("wb") as target:

        class Recorder:
            def write(self, data: bytes) -> int:
                try:
                    return target.write(data)
                except OSError as error:
                    failures.append(error)
                    raise

            def flush(self) -> None:
                target.flush()

        try:
            torch.save(content, Recorder())  # type: ignore[arg-type]
        except RuntimeError:
            if not failures:
                raise
            raise OSError(failures[0].errno, os.strerror(failures[0].errno or 0), str(file.parent)) from None
