"""AdamW (Loshchilov and Hutter 2019), fused: matrices decay, biases and norms do not (as in GPT-3).

Each parameter group is one combination of weight decay and learning rate (param_groups.py).
"""

import torch
from torch import nn

from speciate.training.optimizer.param_groups import has_weight_decay, lr_scale, trainable_parameters
from speciate.training.optimizer_options import AdamWOptions


class Options(AdamWOptions):
    """Options of AdamW."""


def build(options: Options, model: nn.Module) -> torch.optim.AdamW:
    """Build the optimizer; each parameter is in exactly one group, and frozen ones are in none.

    Raises:
        ValueError: a pattern of `lr_scales` matches no parameter, or two match the same one.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trainable_parameters(model, options.lr_scales).items():
        decay = options.weight_decay if has_weight_decay(name, parameter) else 0.0
        groups.setdefault((decay, lr_scale(options.lr_scales, name)), []).append(parameter)
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
