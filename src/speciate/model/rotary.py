"""Rotary position embedding (Su et al. 2021): each pair of a head's dimensions is rotated by the position.

    (x_i, x_{i+h/2})  ->  rotation by  position * base^(-2i/h),   i < h/2

so that the product of a query and a key depends on their distance alone. Pairs are (i, i + h/2), as in Llama.

A model may be stretched to a longer context by slower rotations, of `rotary_scaling`:

    linear (Chen et al. 2023)        every frequency / factor
    llama3 (Grattafiori et al. 2024) frequencies of wavelengths above context / low_frequency are divided by the factor,
                                     those below context / high_frequency stay, and those between are interpolated

B blocks, T tokens, N heads, h dimensions a head, C context.
"""

import math

import torch
from torch import Tensor, nn

from speciate.config.run import ModelSpec


def frequencies(model: ModelSpec, head_width: int) -> Tensor:
    """Return the angle by which each pair of a head's dimensions turns from one position to the next, float64."""
    frequency_h = model.rotary_base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    scaling = model.rotary_scaling
    if scaling is None:
        return frequency_h
    if scaling.kind == "linear":
        return frequency_h / scaling.factor
    low, high = scaling.low_frequency, scaling.high_frequency
    turns_h = scaling.original_context * frequency_h / (2 * math.pi)
    kept_h = ((turns_h - low) / (high - low)).clamp(0, 1)
    return frequency_h * (kept_h + (1 - kept_h) / scaling.factor)


class Rotary(nn.Module):
    """Rotates queries or keys by their positions; the angles of a whole context are computed once."""

    cos_Ch: Tensor
    sin_Ch: Tensor

    def __init__(self, frequency_h: Tensor, context: int) -> None:
        super().__init__()
        angle_Ch = torch.arange(context, dtype=torch.float64)[:, None] * frequency_h
        self.register_buffer("cos_Ch", angle_Ch.cos().float(), persistent=False)
        self.register_buffer("sin_Ch", angle_Ch.sin().float(), persistent=False)

    def forward(self, x_BTNh: Tensor, position_BT: Tensor) -> Tensor:
        """Return x_BTNh rotated, with the same shape and dtype."""
        cos_BT1h = self.cos_Ch[position_BT].unsqueeze(2).to(x_BTNh.dtype)
        sin_BT1h = self.sin_Ch[position_BT].unsqueeze(2).to(x_BTNh.dtype)
        first, second = x_BTNh.chunk(2, dim=-1)
        return torch.cat((first * cos_BT1h - second * sin_BT1h, second * cos_BT1h + first * sin_BT1h), dim=-1)
