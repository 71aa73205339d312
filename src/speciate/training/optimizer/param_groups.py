"""How parameters are grouped for an optimizer: by decay, by rate, and by which rule updates them.

A group carries `scale`, its factor on the base rate, and `peak`, the rate that the schedule's factor multiplies; where
an optimizer has more rules than one, `rule` names the group's.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

Key = tuple[Any, ...]


def learned(model: nn.Module, lr_scales: Iterable[str]) -> dict[str, nn.Parameter]:
    """The parameters that are not frozen, by name.

    Raises:
        ValueError: a pattern of `lr_scales` fits none of them.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for pattern in lr_scales:
        fits_some("lr_scales", pattern, parameters)
    return parameters


def fits_some(key: str, pattern: str, names: Iterable[str]) -> None:
    """Raises ValueError, naming the optimizer's `key`, where `pattern` fits none of `names`."""
    known = list(names)
    if not any(fnmatchcase(name, pattern) for name in known):
        raise ValueError(f"optimizer.{key}: no parameter is called {pattern}; there are {', '.join(known)}")


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices do, embeddings and stacks of experts' matrices among them; a stack of biases does not."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def scale_of(lr_scales: Mapping[str, float], name: str) -> float:
    """The factor of the one pattern that fits `name`, or 1. Raises ValueError where two fit."""
    fitting = [pattern for pattern in lr_scales if fnmatchcase(name, pattern)]
    if len(fitting) > 1:
        raise ValueError(f"optimizer.lr_scales: both {' and '.join(fitting)} fit {name}")
    return lr_scales[fitting[0]] if fitting else 1.0


def describe(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """A row a group: rule, peak rate, weight decay, number of parameters, names; for a reader and for run.json."""
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


def summary(rows: list[dict[str, Any]]) -> str:
    """What `describe` found, in one line: tensors and parameters by rule."""
    rules = dict.fromkeys(row["rule"] for row in rows)
    parts: list[str] = []
    for rule in rules:
        of_rule = [row for row in rows if row["rule"] == rule]
        tensors, parameters = sum(len(row["names"]) for row in of_rule), sum(row["parameters"] for row in of_rule)
        parts.append(f"{rule} updates {parameters:,} parameters in {tensors} tensors")
    return ", ".join(parts)
