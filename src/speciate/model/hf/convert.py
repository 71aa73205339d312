"""Transformers' checkpoints under our names, and ours under theirs.

A tensor of ours is some of theirs joined along its outputs (queries, keys and values are one projection here; so are a
gate and its units), and transposed where theirs is stored the other way round (GPT-2's). One list of such rules a
family serves both directions, and what it does not name is refused, never dropped. The families: gpt2.py, llama.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from speciate.config.run import ModelSpec

Named = Mapping[str, Tensor]
Config = Mapping[str, Any]
"""The content of a transformers folder's config.json."""


@dataclass(frozen=True)
class Rule:
    """One tensor of ours, as theirs joined along the first axis."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    """Outputs of each of theirs; none where there is but one."""
    transposed: bool = False


@dataclass(frozen=True)
class Family:
    """One of transformers' architectures."""

    architecture: str
    prefix: str
    """Of their names; checkpoints of the headless model lack it."""
    rules: Callable[[ModelSpec], list[Rule]]
    """The rules of a model of this shape."""
    settings: Callable[[Config], dict[str, Any]]
    """The shape, as settings of a `spec.Model`, that a config describes. Raises ValueError where we have no such."""
    config: Callable[[ModelSpec], dict[str, Any] | None]
    """Their config of such a shape, but for the vocabulary; None where they have no such."""
    buffers: tuple[str, ...]
    """Ends of names that hold no weights: masks and angles in checkpoints of old."""


def to_ours(theirs: Named, rules: list[Rule]) -> dict[str, Tensor]:
    """Their weights, or gradients of them, under our names.

    Raises:
        ValueError: a tensor is missing, or one is there that no rule names.
    """
    named = {name for rule in rules for name in rule.theirs}
    odd = sorted(named ^ set(theirs))
    if odd:
        raise ValueError(f"{odd[0]} is {'missing' if odd[0] in named else 'no weight of this architecture'}")
    ours = {}
    for rule in rules:
        parts = [theirs[name].t() if rule.transposed else theirs[name] for name in rule.theirs]
        ours[rule.ours] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return ours


def to_theirs(ours: Named, rules: list[Rule]) -> dict[str, Tensor]:
    """Our weights under their names; the inverse of `to_ours`."""
    theirs = {}
    for rule in rules:
        parts = ours[rule.ours].split(rule.rows) if rule.rows else (ours[rule.ours],)
        for name, part in zip(rule.theirs, parts, strict=True):
            theirs[name] = (part.t() if rule.transposed else part).contiguous()
    return theirs


def clean(theirs: Named, family: Family, tied: bool) -> dict[str, Tensor]:
    """Their weights under their full names, without buffers and without a head that is the embedding again."""
    cleaned = {}
    for name, tensor in theirs.items():
        full = name if name.startswith((family.prefix, "lm_head.")) else family.prefix + name
        if not full.endswith(family.buffers) and not (tied and full == "lm_head.weight"):
            cleaned[full] = tensor
    return cleaned


def refuse_others(config: Config, known: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises ValueError where `config` holds another value than `known` gives a key; its first is the default."""
    for key, values in known.items():
        if config.get(key, values[0]) not in values:
            raise ValueError(f"{key}: {config[key]!r} is not supported; only {' or '.join(map(repr, values))} is")


def dense_options(model: ModelSpec) -> dict[str, Any] | None:
    """The options of attention and dense feed-forward where they are what every layer is; else None."""
    block = model.block
    if model.exceptions or (block.mixer.kind, block.ffn.kind, block.depth.kind) != ("attention", "dense", "every"):
        return None
    return {**block.mixer.model_dump(), **block.ffn.model_dump()}
