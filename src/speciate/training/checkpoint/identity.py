"""The identity of a run: a checkpoint is resumed only with the same spec, data, vocabulary and start.

A run's checkpoints lie in a folder whose name stands for its identity and its code. If either changes, the run starts
from scratch in another folder, and what it had reached before stays for a while.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from speciate.config.run import RunSpec
from speciate.io import sha256

MAY_CHANGE = (
    *("training.checkpoint_every", "training.keep_last"),
    *("training.on_nonfinite", "training.on_failure", "training.oom_retry", "training.evaluate_ema"),
)
"""Keys of a spec that may change while a run is unfinished: nothing trained so far depends on them."""
DATA = ("mixture.json", "train.npy", "probe.tokens.npy")
MAX_SHOWN = 6
"""Differences of the spec that a message names one by one."""
Identity = dict[str, Any]


def identify(
    spec: RunSpec, mixture_folder: pathlib.Path, vocabulary: Mapping[str, Any], start: pathlib.Path | None
) -> Identity:
    """Return the identity of a run, as JSON.

    Args:
        spec: the run.
        mixture_folder: what `balance` wrote.
        vocabulary: number of tokens and the tokenizer's fingerprint.
        start: a file, or a folder of files, that the run starts from.
    """
    files = [] if start is None else sorted(start.glob("*")) if start.is_dir() else [start]
    return {
        "spec": spec.model_dump(mode="json"),
        "data": {name: sha256(mixture_folder / name) for name in DATA},
        "vocabulary": dict(vocabulary),
        "start": {file.name: sha256(file) for file in files if file.is_file()},
    }


def identity_key(identity: Mapping[str, Any], code: str) -> str:
    """Return ten hex digits that stand for an identity, without the keys that may change, and for a digest of code."""
    spec = {name: value for name, value in _leaves(identity["spec"]) if name not in MAY_CHANGE}
    content = json.dumps([{**identity, "spec": spec}, code], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def identity_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return, in words, what differs between a checkpoint's identity and the run's; empty: it may be resumed."""
    spec = [f"spec: {difference}" for difference in _differences(old["spec"], new["spec"])]
    if len(spec) > MAX_SHOWN:
        spec[MAX_SHOWN:] = [f"spec: {len(spec) - MAX_SHOWN} more keys"]
    vocabulary = [f"vocabulary: {difference}" for difference in _differences(old["vocabulary"], new["vocabulary"])]
    files = [
        f"{part}: {name} has other content"
        for part in ("data", "start")
        for name in sorted(set(old[part]) | set(new[part]))
        if old[part].get(name) != new[part].get(name)
    ]
    return [*spec, *vocabulary, *files]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = dict(_leaves(old)), dict(_leaves(new))
    names = sorted(name for name in set(before) | set(after) if name not in MAY_CHANGE)
    return [
        f"{name} is {after.get(name)!r}, was {before.get(name)!r}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of everything that is neither a mapping nor a list."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        yield path, value
        return
    for key, item in items:
        yield from _leaves(item, f"{path}.{key}" if path else str(key))
