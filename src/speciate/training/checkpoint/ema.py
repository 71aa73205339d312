"""An exponential moving average of the weights (Polyak and Juditsky 1992; as Song et al. 2021 use it for diffusion).

    a_0 = theta_0;   a_n = d_n a_{n-1} + (1 - d_n) theta_n
    d_n = decay, or min(decay, (1 + n) / (10 + n)) with warm-up: a young average forgets the initial weights sooner

Parameters are averaged. Buffers (balancing biases, fixed weights) are taken from the model as they are.
"""

import torch
from torch import Tensor, nn


class WeightAverage:
    """The moving average of one model's parameters, which must stay the same tensors meanwhile.

    Args:
        model: the model whose weights the average begins with.
        decay: d.
        warmup: whether d begins smaller.
    """

    def __init__(self, model: nn.Module, decay: float, warmup: bool) -> None:
        self.decay, self.warmup = decay, warmup
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        """By the parameter's name; a parameter with two names is under its first."""

    def decay_at(self, update: int) -> float:
        """Return d_n; `update` counts from 1."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module, update: int) -> None:
        """Average in the weights after update number `update`."""
        weight = 1 - self.decay_at(update)
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in model.parameters()], weight)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Copy a saved average into this one."""
        assert weights.keys() == self.weights.keys()
        for name, weight in weights.items():
            self.weights[name].copy_(weight)
