"""Checkpoints: everything that the next step depends on, written aside, synced and renamed, so that none is half there.

A checkpoint is a folder `step<n>` that holds the model's weights (safetensors), the optimizer's state and torch's
random state (loadable with weights_only), the telemetry so far, the metrics so far, and a manifest: the sha256 of each
file, the run's identity (its whole spec; digests of data, vocabulary and start), versions, threads, and a digest of
itself. The folders above it are named by the run and by the code:

    <ablation>-seed<k>/lock               held by the one process that trains the run
    <ablation>-seed<k>/<code>/step<n>/    other code: another folder, and the run starts anew

The router's noise is the one thing that a step draws from torch's generator, whose state is therefore saved; all else
that is random is addressed by seed and step.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import safetensors.torch
import torch

from speciate.graph.provenance import sha256, short_digest
from speciate.model.transformer import Transformer
from speciate.training.checkpoint.ema import WeightAverage
from speciate.training.checkpoint.identity import Identity, changes
from speciate.training.checkpoint.sharded import load_parts
from speciate.training.checkpoint.weights import full_disk, load_weights, save_tensors, tensors_of
from speciate.training.distributed.ranks import ALONE, Ranks

Arrays = dict[str, npt.NDArray[np.generic]]
EMA = "ema.safetensors"
"""The average of the weights, in a checkpoint and beside a finished run's model that is not the average itself."""


@dataclass
class State:
    """What a training run is between two steps."""

    step: int
    model: Transformer
    optimizer: torch.optim.Optimizer
    metrics: list[str]
    """Lines of metrics.jsonl so far."""
    telemetry: Arrays
    """What the observer has seen so far."""
    average: WeightAverage | None = None
    """The moving average of the weights, where the run keeps one."""
    random: torch.Tensor | None = None
    """Random states of all processes, where several train and one of them saves; None: this process's own is."""
    shards: pathlib.Path | None = None
    """The folder of `sharded.save_parts` that a checkpoint takes in, in place of weights and optimizer."""
    grad_accumulation: int | None = None
    """Micro-batches in a step from here on, where memory forced more than the spec's."""


@contextlib.contextmanager
def exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Holds a run's folder for one process, for as long as the block or the process lives.

    Raises:
        ValueError: another process trains this run.
    """
    while True:
        _make(folder)
        with (folder / "lock").open("w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{folder}: another process is training this run; wait for it or end it") from None
            # one that has just finished removes the folder: what is locked must still be what others find
            if (folder / "lock").exists() and os.fstat(lock.fileno()).st_ino == (folder / "lock").stat().st_ino:
                yield
                return


def save(folder: pathlib.Path, state: State, identity: Identity | None = None, keep: int = 2) -> None:
    """Writes `folder/step<n>`; once it is complete, all but the newest `keep` are removed.

    Raises:
        OSError: it cannot be written, the disk is full; what was there before is still there.
    """
    aside, target = folder / f".step{state.step}", folder / f"step{state.step}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _make(folder)
        aside.mkdir()
        _fill(aside, state, identity)
        for file in (*aside.iterdir(), aside):
            _sync(file)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one: an intact one would have been continued
        aside.rename(target)
        for place in (folder, folder.parent):  # the folder may be new, too
            _sync(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for old in _checkpoints(folder)[:-keep]:
        # out of sight at once: removing takes many steps, and one may be the last
        shutil.rmtree(old.rename(old.with_name(f".{old.name}")))


def _fill(aside: pathlib.Path, state: State, identity: Identity | None) -> None:
    """Writes every file of a checkpoint, the manifest last."""
    optimizer: dict[str, object] = {}
    if state.shards is None:
        save_tensors(tensors_of(state.model), aside / "model.safetensors")
        if state.average is not None:
            save_tensors(state.average.weights, aside / EMA)
        optimizer = state.optimizer.state_dict()
    else:
        for part in state.shards.iterdir():
            part.rename(aside / part.name)
    random = torch.get_rng_state() if state.random is None else state.random
    _save_pickle(
        {"optimizer": optimizer, "random": random, "grad_accumulation": state.grad_accumulation},
        aside / "train_state.pt",
    )
    with full_disk(aside):
        safetensors.numpy.save_file(state.telemetry, aside / "telemetry.safetensors")
    (aside / "metrics.jsonl").write_text("".join(state.metrics), encoding="utf-8")
    manifest = {
        "step": state.step,
        "sha256": {file.name: sha256(file) for file in sorted(aside.iterdir())},
        "identity": identity,
        "spec_digest": None if identity is None else short_digest(json.dumps(identity["spec"], sort_keys=True)),
        **surroundings(),
    }
    text = json.dumps({**manifest, "digest": _digest(manifest)}, indent=1) + "\n"
    (aside / "manifest.json").write_text(text, encoding="utf-8")


def restore(
    folder: pathlib.Path,
    state: State,
    ranks: Ranks = ALONE,
    identity: Identity | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Puts the newest intact checkpoint of `folder` into `state`; False where there is none. Of `ranks`, each calls it.

    Args:
        folder: that of the run and its code.
        state: altered in place.
        ranks: the processes that train the run now.
        identity: what the run is; None: any may be continued.
        say: is told of a checkpoint that is damaged, and which one is taken instead.

    Raises:
        ValueError: checkpoints are there but none is intact, or it is another run's; the message says what is damaged
            or what has changed.
    """
    checkpoint, manifest, damaged = newest(folder)
    if checkpoint is None:
        if damaged:
            raise ValueError(
                f"{folder}: no checkpoint is intact ({'; '.join(damaged)}); remove the folder to start anew"
            )
        return False
    if identity is not None and manifest["identity"] is not None:
        refuse_another(folder, manifest, identity)
    if damaged:
        say(f"{folder}: damaged checkpoint ({'; '.join(damaged)}); falls back to {checkpoint.name}")
    differences = surroundings_changed(manifest)
    if differences:
        say(f"{checkpoint}: was written with {', '.join(differences)}; bits may differ from here on")
    rest = torch.load(checkpoint / "train_state.pt", weights_only=True, map_location="cpu")
    if rest["optimizer"]:
        load_weights(state.model, checkpoint / "model.safetensors")
        if state.average is not None:
            state.average.load(safetensors.torch.load_file(checkpoint / EMA))
        state.optimizer.load_state_dict(rest["optimizer"])
    else:
        average = None if state.average is None else state.average.weights
        load_parts(checkpoint, state.model, state.optimizer, average, ranks)
    ranks.set_random_state(rest["random"])
    state.grad_accumulation = rest["grad_accumulation"]
    state.telemetry.update(safetensors.numpy.load_file(checkpoint / "telemetry.safetensors"))
    state.metrics[:] = (checkpoint / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    state.step = manifest["step"]
    return True


def surroundings() -> dict[str, Any]:
    """What bits depend on beside the run and its code: versions of libraries, and threads, which order additions."""
    versions = {"torch": torch.__version__, "numpy": np.__version__, "safetensors": safetensors.__version__}
    return {"versions": versions, "threads": torch.get_num_threads()}


def surroundings_changed(manifest: Mapping[str, Any]) -> list[str]:
    """How they were where a checkpoint was written, of those that differ now, in words."""
    here = surroundings()
    then, now = ({**each["versions"], "threads": each["threads"]} for each in (manifest, here))
    return [
        f"{name} {then[name]} (now {now[name]})" for name in ("torch", "numpy", "threads") if then[name] != now[name]
    ]


def newest(folder: pathlib.Path) -> tuple[pathlib.Path | None, dict[str, Any], list[str]]:
    """The newest intact checkpoint of a folder and its manifest, and what is wrong with each newer one."""
    damaged: list[str] = []
    for checkpoint in reversed(_checkpoints(folder)):
        manifest, problem = _read(checkpoint)
        if not problem:
            return checkpoint, manifest, damaged
        damaged.append(problem)
    return None, {}, damaged


def refuse_another(folder: pathlib.Path, manifest: Mapping[str, Any], identity: Identity) -> None:
    """Raises ValueError, naming what changed, where the checkpoint with this manifest is not of this run."""
    changed = changes(manifest["identity"], identity)
    if changed:
        lines = [f"{folder}: holds this run up to step {manifest['step']}, and since then something has changed:"]
        lines += [f"  {change}" for change in changed]
        raise ValueError("\n".join([*lines, "  change it back to continue, or remove the folder to start anew"]))


def refuse_others(folder: pathlib.Path, code: str, identity: Identity) -> str:
    """Looks at what other code has left of a run, in folders beside that of `code`.

    Returns:
        What a reader should know: that the code has changed and the run starts anew; empty where nothing is there.

    Raises:
        ValueError: not the code alone has changed.
    """
    words = ""
    for other in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != code):
        checkpoint, manifest, _ = newest(other)
        if checkpoint is not None and manifest["identity"] is not None:
            refuse_another(folder, manifest, identity)
            words = f"the code has changed since step {manifest['step']} was saved"
    return words if not _checkpoints(folder / code) else ""


def _checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("step*"), key=lambda path: int(path.name.removeprefix("step")))


def _digest(manifest: Mapping[str, Any]) -> str:
    return short_digest(json.dumps(manifest, sort_keys=True))


def _read(checkpoint: pathlib.Path) -> tuple[dict[str, Any], str]:
    """A checkpoint's manifest, and what is wrong with it; empty where its files are those that the manifest names."""
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


def _sync(path: pathlib.Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make(folder: pathlib.Path) -> None:
    """Makes a folder and those above it; the name of each that is new is on the disk."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(new):
        _sync(each.parent)


def _save_pickle(content: dict[str, Any], file: pathlib.Path) -> None:
    """torch.save, whose own words for a full disk are those of its container."""
    failed: list[OSError] = []
    with file.open("wb") as target:

        class Told:
            def write(self, data: bytes) -> int:
                try:
                    return target.write(data)
                except OSError as error:
                    failed.append(error)
                    raise

            def flush(self) -> None:
                target.flush()

        try:
            torch.save(content, Told())  # type: ignore[arg-type]
        except RuntimeError:
            if not failed:
                raise
            raise OSError(failed[0].errno, os.strerror(failed[0].errno or 0), str(file.parent)) from None
