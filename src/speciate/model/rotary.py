"""Rotary position embedding (Su et al. 2021): each pair of a head's dimensions is rotated by the position.

    (x_i, x_{i+h/2})  ->  rotation by  position * base^(-2i/h),   i < h/2

so that the product of a query and a key depends on their distance alone. Pairs are (i, i + h/2), as in Llama.

B blocks, T tokens, N heads, h dimensions a head, C context.
"""

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Rotates queries or keys by their positions; the angles of a whole context are computed once."""

    cos_Ch: Tensor
    sin_Ch: Tensor

    def __init__(self, head_width: int, context: int, base: float) -> None:
        super().__init__()
        frequency_h = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
        angle_Ch = torch.arange(context, dtype=torch.float64)[:, None] * frequency_h
        self.register_buffer("cos_Ch", angle_Ch.cos().float(), persistent=False)
        self.register_buffer("sin_Ch", angle_Ch.sin().float(), persistent=False)

    def forward(self, x_BTNh: Tensor, position_BT: Tensor) -> Tensor:
        """Return x_BTNh rotated, with the same shape and dtype."""
        cos_BT1h = self.cos_Ch[position_BT].unsqueeze(2).to(x_BTNh.dtype)
        sin_BT1h = self.sin_Ch[position_BT].unsqueeze(2).to(x_BTNh.dtype)
        first, second = x_BTNh.chunk(2, dim=-1)
        return torch.cat((first * cos_BT1h - second * sin_BT1h, second * cos_BT1h + first * sin_BT1h), dim=-1)
