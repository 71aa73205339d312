"""What a checkpoint may be continued by: the same spec, data, vocabulary and start; and what is another, by name.

The code is not in it: a checkpoint that other code wrote lies in another folder, and the run starts anew.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from speciate.config.run import RunSpec
from speciate.graph.provenance import sha256

FREE = (
    *("training.checkpoint_every", "training.keep_last"),
    *("training.on_nonfinite", "training.on_failure", "training.oom_retry", "training.evaluate_ema"),
)
"""Keys of a spec that may change while a run is unfinished: no bit of what is done already depends on them."""
DATA = ("mixture.json", "train.npy", "probe.tokens.npy")
SHOWN = 6
"""Differences that a message names one by one."""
Identity = dict[str, Any]


def identify(
    spec: RunSpec, mixture_folder: pathlib.Path, vocabulary: Mapping[str, Any], start: pathlib.Path | None
) -> Identity:
    """The identity of a run, as JSON.

    Args:
        spec: the run.
        mixture_folder: what the balance stage wrote.
        vocabulary: number of tokens and the tokenizer's fingerprint.
        start: a file, or a folder of files, that the run starts from.
    """
    given = [] if start is None else sorted(start.glob("*")) if start.is_dir() else [start]
    return {
        "spec": spec.model_dump(mode="json"),
        "data": {name: sha256(mixture_folder / name) for name in DATA},
        "vocabulary": dict(vocabulary),
        "start": {file.name: sha256(file) for file in given if file.is_file()},
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What of a checkpoint's identity is another now, in words; empty: it may be continued."""
    spec = [f"spec: {difference}" for difference in _differences(old["spec"], new["spec"])]
    if len(spec) > SHOWN:
        spec[SHOWN:] = [f"spec: {len(spec) - SHOWN} more keys"]
    vocabulary = [f"vocabulary: {difference}" for difference in _differences(old["vocabulary"], new["vocabulary"])]
    files = [
        f"{part}: {name} is another"
        for part in ("data", "start")
        for name in sorted(set(old[part]) | set(new[part]))
        if old[part].get(name) != new[part].get(name)
    ]
    return [*spec, *vocabulary, *files]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    there, here = dict(_leaves(old)), dict(_leaves(new))
    names = sorted(name for name in set(there) | set(here) if name not in FREE and there.get(name) != here.get(name))
    return [f"{name} is {here.get(name)!r}, was {there.get(name)!r}" for name in names]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that is no mapping and no list."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        yield path, value
        return
    for key, each in items:
        yield from _leaves(each, f"{path}.{key}" if path else str(key))
