"""Parameter groups of an optimizer: by weight decay, by learning rate, and by the rule that updates them.

A group carries `scale`, its factor on the base learning rate, and `peak`, the rate that the schedule's factor
multiplies. Where an optimizer has several rules, `rule` names the group's.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn


def trainable_parameters(model: nn.Module, lr_scales: Iterable[str]) -> dict[str, nn.Parameter]:
    """Return the parameters that are not frozen, by name.

    Raises:
        ValueError: a pattern of `lr_scales` matches none of them.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for pattern in lr_scales:
        check_pattern_matches("lr_scales", pattern, parameters)
    return parameters


def check_pattern_matches(key: str, pattern: str, names: Iterable[str]) -> None:
    """Raise ValueError, naming the optimizer's `key`, if `pattern` matches none of `names`."""
    names = list(names)
    if not any(fnmatchcase(name, pattern) for name in names):
        raise ValueError(f"optimizer.{key}: {pattern} matches no parameter; available: {', '.join(names)}")


def has_weight_decay(name: str, parameter: nn.Parameter) -> bool:
    """Return True for matrices, which include embeddings and stacks of experts' matrices, but not stacks of biases."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def lr_scale(lr_scales: Mapping[str, float], name: str) -> float:
    """Return the factor of the one pattern that matches `name`, or 1. Raises ValueError if two match."""
    matching = [pattern for pattern in lr_scales if fnmatchcase(name, pattern)]
    if len(matching) > 1:
        raise ValueError(f"optimizer.lr_scales: both {' and '.join(matching)} match {name}")
    return lr_scales[matching[0]] if matching else 1.0


def describe_groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """Return a row for each group: rule, peak rate, weight decay, number of parameters, names; for run.json."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        {
            "rule": group.get("rule", type(optimizer).__name__.lower()),
            "peak_rate": group["peak"],
            "weight_decay": group["weight_decay"],
            "parameters": sum(parameter.numel() for parameter in group["params"]),
            "names": [names[id(parameter)] for parameter in group["params"]],
        }
        for group in optimizer.param_groups
    ]


def summarise_groups(rows: list[dict[str, Any]]) -> str:
    """Return the rows of `describe_groups` in one line: tensors and parameters by rule."""
    rules = dict.fromkeys(row["rule"] for row in rows)
    parts: list[str] = []
    for rule in rules:
        rule_rows = [row for row in rows if row["rule"] == rule]
        tensors, parameters = sum(len(row["names"]) for row in rule_rows), sum(row["parameters"] for row in rule_rows)
        parts.append(f"{rule} updates {parameters:,} parameters in {tensors} tensors")
    return ", ".join(parts)
