"""An embedding of the share of masked tokens, added to every token's embedding (features of Ho et al. 2020).

    e(s) = W_out silu(W sin/cos(1000 s / 10000^(2j/D))),   W_out = 0 at first, so that training begins without it

B blocks, D width, H half of it.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.module_hooks import DrawsOwnWeights
from speciate.model.token_batch import BuildContext

TIME_SCALE = 1000.0
"""Factor on s: unscaled, s in [0, 1] would hardly move most of the waves."""


class TimeEmbedding(DrawsOwnWeights, nn.Module):
    """Embedding of the share of masked tokens."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.width = context.model.width
        self.up = nn.Linear(self.width, self.width)
        self.out = nn.Linear(self.width, self.width)

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Set the output layer to zero."""
        self.out.weight.zero_()

    def forward(self, share_B: Tensor) -> Tensor:
        """Return the embedding of each block's share, (B, D)."""
        half = (self.width + 1) // 2
        frequency_H = torch.exp(-math.log(10000.0) * torch.arange(half, device=share_B.device) / half)
        angle_BH = TIME_SCALE * share_B.unsqueeze(1) * frequency_H
        wave_BD = torch.cat([angle_BH.sin(), angle_BH.cos()], 1)[:, : self.width].to(self.up.weight.dtype)
        embedding_BD: Tensor = self.out(F.silu(self.up(wave_BD)))
        return embedding_BD
