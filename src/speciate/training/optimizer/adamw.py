"""AdamW (Loshchilov and Hutter 2019), fused, with groups: matrices decay, biases and norms do not (GPT-3's way).

A group is one combination of weight decay and rate; groups.py has what all optimizers share of it.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from speciate.config.contracts.training import OptimizerOptions
from speciate.training.optimizer.param_groups import decays, learned, scale_of


class Options(OptimizerOptions):
    """Rates and decay."""

    lr: float = Field(0.003, gt=0)
    """Peak learning rate."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    epsilon: float = Field(1e-8, gt=0)
    """Added to the root of the mean square."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled decay of matrices and embeddings, a step and unit of rate; biases and norms have none."""
    lr_scales: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Shell patterns of parameter names -> factor on the rate; {"*.router.*": 10.0}: routers learn ten times faster."""


def build(options: Options, model: nn.Module) -> torch.optim.AdamW:
    """The optimizer of a model's parameters, each in exactly one group; frozen ones in none.

    Raises:
        ValueError: a pattern of `lr_scales` fits no parameter, or two fit the same one.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in learned(model, options.lr_scales).items():
        decay = options.weight_decay if decays(name, parameter) else 0.0
        groups.setdefault((decay, scale_of(options.lr_scales, name)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "weight_decay": decay, "scale": scale, "peak": options.lr * scale}
            for (decay, scale), members in groups.items()
        ],
        lr=options.lr,
        betas=(options.beta1, options.beta2),
        eps=options.epsilon,
        fused=True,
    )
