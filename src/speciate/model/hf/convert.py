"""Converts weights between our names and those of transformers' checkpoints, in both directions.

One of our tensors is one or more of theirs, concatenated along the outputs: queries, keys and values are one projection
here, and so are a gate and its units. It is transposed if theirs is stored the other way round (GPT-2's). One list of
such rules for each family serves both directions; a tensor that no rule names is an error, and never dropped. The
families are in gpt2.py and llama.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from speciate.config.run import ModelSpec

NamedTensors = Mapping[str, Tensor]
"""Weights by name."""
Config = Mapping[str, Any]
"""Content of a transformers folder's config.json."""


@dataclass(frozen=True)
class Rule:
    """One of our tensors, as tensors of theirs concatenated along the first axis."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    """Number of outputs of each of theirs; empty if there is only one."""
    transposed: bool = False


@dataclass(frozen=True)
class Family:
    """One of transformers' architectures, and how to convert it."""

    architecture: str
    prefix: str
    """Prefix of their names; checkpoints of the model without a head lack it."""
    rules: Callable[[ModelSpec], list[Rule]]
    """Returns the rules of a model of this shape."""
    settings: Callable[[Config], dict[str, Any]]
    """Returns the shape that a config describes, as settings of a ModelSpec; ValueError if we have no such model."""
    config: Callable[[ModelSpec], dict[str, Any] | None]
    """Returns their config of such a shape, without the vocabulary; None if they have no such model."""
    buffers: tuple[str, ...]
    """Suffixes of names that hold no weights: masks and angles in old checkpoints."""


def import_weights(theirs: NamedTensors, rules: list[Rule]) -> dict[str, Tensor]:
    """Return their weights, or the gradients of those, under our names.

    Raises:
        ValueError: a tensor is missing, or no rule names one.
    """
    expected = {name for rule in rules for name in rule.theirs}
    mismatched = sorted(expected ^ set(theirs))
    if mismatched:
        why = "missing" if mismatched[0] in expected else "no weight of this architecture"
        raise ValueError(f"{mismatched[0]} is {why}")
    ours = {}
    for rule in rules:
        parts = [theirs[name].t() if rule.transposed else theirs[name] for name in rule.theirs]
        ours[rule.ours] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return ours


def export_weights(ours: NamedTensors, rules: list[Rule]) -> dict[str, Tensor]:
    """Return our weights under their names; the inverse of `import_weights`."""
    theirs = {}
    for rule in rules:
        parts = ours[rule.ours].split(rule.rows) if rule.rows else (ours[rule.ours],)
        for name, part in zip(rule.theirs, parts, strict=True):
            theirs[name] = (part.t() if rule.transposed else part).contiguous()
    return theirs


def complete_names(theirs: NamedTensors, family: Family, tied: bool) -> dict[str, Tensor]:
    """Return their weights under full names, without buffers and without a head that is tied to the embedding."""
    completed = {}
    for name, tensor in theirs.items():
        full = name if name.startswith((family.prefix, "lm_head.")) else family.prefix + name
        if not full.endswith(family.buffers) and not (tied and full == "lm_head.weight"):
            completed[full] = tensor
    return completed


def require_known_values(config: Config, known: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise ValueError if `config` has a value that `known` does not allow; the first allowed one is the default."""
    for key, values in known.items():
        if config.get(key, values[0]) not in values:
            raise ValueError(f"{key}: {config[key]!r} is not supported; only {' or '.join(map(repr, values))} is")


def dense_options(model: ModelSpec) -> dict[str, Any] | None:
    """Return the options of attention and dense feed-forward layer if every layer consists of these; else None."""
    block = model.block
    if model.exceptions or (block.mixer.kind, block.ffn.kind, block.depth.kind) != ("attention", "dense", "every"):
        return None
    return {**block.mixer.model_dump(), **block.ffn.model_dump()}
