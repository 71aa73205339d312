"""Convert weights between our parameter names and those of transformers' checkpoints.

One of our parameters is one or more tensors of transformers, concatenated along the outputs: queries, keys and values
are one projection here, and so are a gate and its units. It is transposed if transformers stores it the other way round
(GPT-2, and the experts of Mixtral). One list of such rules for each family serves both directions; a tensor that no
rule names is an error, and never dropped. The families are in gpt2.py, llama.py (Mistral too),
qwen.py, gemma.py and mixtral.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from speciate.config.run import ModelSpec

NamedTensors = Mapping[str, Tensor]
"""Weights by name."""


@dataclass(frozen=True)
class Rule:
    """How one of our parameters is made of tensors of transformers, concatenated along the first axis."""

    name: str
    """Our parameter's name."""
    hf_names: tuple[str, ...]
    """Names of the tensors in transformers."""
    rows: tuple[int, ...] = ()
    """Number of outputs of each of these tensors; empty if there is only one."""
    transposed: bool = False
    """Whether transformers stores it with its last two axes exchanged."""
    offset: float = 0.0
    """What our values have beyond those of transformers: Gemma stores the gain of a norm less 1."""


@dataclass(frozen=True)
class Family:
    """One of transformers' architectures, and how to convert it."""

    architecture: str
    prefix: str
    """Prefix of the names in transformers; checkpoints of the model without a head lack it."""
    rules: Callable[[ModelSpec], list[Rule]]
    """Returns the rules of a model of this shape."""
    config: Callable[[ModelSpec], dict[str, Any] | None]
    """Return transformers' config of a shape, without the vocabulary; None if the family has no such model."""
    buffers: tuple[str, ...]
    """Suffixes of names that hold no weights: masks and angles in old checkpoints."""


def import_weights(hf_weights: NamedTensors, rules: list[Rule]) -> dict[str, Tensor]:
    """Return transformers' weights, or their gradients, under our names.

    Raises:
        ValueError: a tensor is missing, or no rule names one.
    """
    expected = {name for rule in rules for name in rule.hf_names}
    mismatched = sorted(expected ^ set(hf_weights))
    if mismatched:
        why = "missing" if mismatched[0] in expected else "no weight of this architecture"
        raise ValueError(f"{mismatched[0]} is {why}")
    weights = {}
    for rule in rules:
        parts = [hf_weights[name].mT if rule.transposed else hf_weights[name] for name in rule.hf_names]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        if rule.offset:
            joined = joined.to(torch.promote_types(joined.dtype, torch.float32)) + rule.offset
        weights[rule.name] = joined
    return weights


def export_weights(weights: NamedTensors, rules: list[Rule]) -> dict[str, Tensor]:
    """Return our weights under transformers' names; the inverse of `import_weights`."""
    hf_weights = {}
    for rule in rules:
        weight = weights[rule.name] - rule.offset if rule.offset else weights[rule.name]
        parts = weight.split(rule.rows) if rule.rows else (weight,)
        for name, part in zip(rule.hf_names, parts, strict=True):
            hf_weights[name] = (part.mT if rule.transposed else part).contiguous()
    return hf_weights


def complete_names(hf_weights: NamedTensors, family: Family, tied: bool) -> dict[str, Tensor]:
    """Return transformers' weights under full names, without buffers and without a head tied to the embedding."""
    completed = {}
    for name, tensor in hf_weights.items():
        full = name if name.startswith((family.prefix, "lm_head.")) else family.prefix + name
        if not full.endswith(family.buffers) and not (tied and full == "lm_head.weight"):
            completed[full] = tensor
    return completed


def dense_options(model: ModelSpec) -> dict[str, Any] | None:
    """Return the options of attention and dense feed-forward layer if every layer consists of these; else None.

    What is not given has its value: `num_kv_heads`, `head_width` and `qkv_bias` are never None.
    """
    block = model.block
    if model.exceptions or (block.mixer.kind, block.ffn.kind, block.depth.kind) != ("attention", "dense", "every"):
        return None
    return {**attention_options(model), **block.ffn.model_dump()}


def attention_options(model: ModelSpec) -> dict[str, Any]:
    """Return the options of attention, none of them None."""
    mixer: Any = model.block.mixer
    options: dict[str, Any] = mixer.model_dump()
    return options | {
        "num_kv_heads": mixer.num_kv_heads or mixer.num_heads,
        "head_width": mixer.width_of_head(model.width),
        "qkv_bias": mixer.has_qkv_bias(model.biases),
    }
