"""The sigmoid gate of Gated Sparse Attention: sigmoid(x W^T + b), initially with b = 1/2 and a small W.

The weights begin with a tenth of Glorot and Bengio's (2010) standard deviation, so that every gate begins near .62,
whatever the token (as released with Gated Sparse Attention, arXiv 2601.15305).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from speciate.model.module_hooks import DrawsOwnWeights

GAIN, BIAS = 0.1, 0.5


class Gate(DrawsOwnWeights, nn.Linear):
    """A linear layer whose outputs are gates from 0 to 1."""

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Draw small weights, and set the bias to 1/2."""
        scale = GAIN * (2 / (self.in_features + self.out_features)) ** 0.5
        self.weight.copy_(torch.empty(self.weight.shape).normal_(0.0, scale, generator=draw("weight")))
        self.bias.fill_(BIAS)

    def forward(self, input: Tensor) -> Tensor:
        """Return the gates of each token, (..., outputs)."""
        return super().forward(input).sigmoid()
