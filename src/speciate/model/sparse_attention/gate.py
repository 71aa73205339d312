"""A sigmoid gate on each of its outputs: sigmoid(x W^T + b), b = 1/2 at first and W small.

The weights begin with a tenth of Glorot and Bengio's (2010) standard deviation, so that every gate is at .62 at first,
whatever the token (as released with Gated Sparse Attention, arXiv 2601.15305).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

GAIN, BIAS = 0.1, 0.5


class Gate(nn.Linear):
    """How far each of its outputs is open, from 0 to 1."""

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Small weights, an even bias; see initial.py."""
        scale = GAIN * (2 / (self.in_features + self.out_features)) ** 0.5
        self.weight.copy_(torch.empty(self.weight.shape).normal_(0.0, scale, generator=draw("weight")))
        self.bias.fill_(BIAS)

    def forward(self, input: Tensor) -> Tensor:
        """The gates of each token, (..., outputs)."""
        return super().forward(input).sigmoid()
