"""AdamW (Loshchilov and Hutter 2019), fused, with groups: matrices decay, biases and norms do not (GPT-3's way).

A group is one combination of weight decay and rate. Each carries `scale`, its factor on the base rate, and `peak`, the
rate that the schedule's factor multiplies.
"""

from fnmatch import fnmatchcase
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from speciate.kinds import Kind


class Options(Kind):
    """Rates and decay."""

    rate: float = Field(0.003, gt=0)
    """Peak learning rate."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-8, gt=0)
    """Added to the root of the mean square."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled decay of matrices and embeddings, a step and unit of rate; biases and norms have none."""
    rate_scales: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Shell patterns of parameter names -> factor on the rate; {"*.router.*": 10.0}: routers learn ten times faster."""


def build(options: Options, model: nn.Module) -> torch.optim.AdamW:
    """The optimizer of a model's parameters, each in exactly one group; frozen ones in none.

    Raises:
        ValueError: a pattern of `rate_scales` fits no parameter, or two fit the same one.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for pattern in options.rate_scales:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            names = ", ".join(parameters)
            raise ValueError(f"optimizer.rate_scales: no parameter is called {pattern}; there are {names}")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = options.weight_decay if decays(name, parameter) else 0.0
        groups.setdefault((decay, scale_of(options, name)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": decay, "scale": scale, "peak": options.rate * scale}
            for (decay, scale), members in groups.items()
        ],
        lr=options.rate,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        fused=True,
    )


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Matrices do, embeddings and stacks of experts' matrices among them; a stack of biases does not."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def scale_of(options: Options, name: str) -> float:
    """The factor of the one pattern that fits `name`, or 1. Raises ValueError where two fit."""
    fitting = [pattern for pattern in options.rate_scales if fnmatchcase(name, pattern)]
    if len(fitting) > 1:
        raise ValueError(f"optimizer.rate_scales: both {' and '.join(fitting)} fit {name}")
    return options.rate_scales[fitting[0]] if fitting else 1.0
