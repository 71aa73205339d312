"""What tells a denoiser how much is masked: added to every token's embedding (Ho et al. 2020's features).

    e(s) = W_out silu(W sin/cos(1000 s / 10000^(2j/D))),   W_out = 0 at first: it begins as if it were not there

B blocks, D width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.token_batch import BuildContext

SCALE = 1000.0
"""Of s, which in [0, 1] would leave most of the waves still."""


class TimeEmbedding(nn.Module):
    """Of the share masked."""

    def __init__(self, place: BuildContext) -> None:
        super().__init__()
        self.width = place.model.width
        self.up = nn.Linear(self.width, self.width)
        self.out = nn.Linear(self.width, self.width)

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Nothing is added at first."""
        self.out.weight.zero_()

    def forward(self, share_B: Tensor) -> Tensor:
        """(B, D)."""
        half = (self.width + 1) // 2
        rate_H = torch.exp(-math.log(10000.0) * torch.arange(half, device=share_B.device) / half)
        angle_BH = SCALE * share_B.unsqueeze(1) * rate_H
        wave_BD = torch.cat([angle_BH.sin(), angle_BH.cos()], 1)[:, : self.width].to(self.up.weight.dtype)
        told_BD: Tensor = self.out(F.silu(self.up(wave_BD)))
        return told_BD
