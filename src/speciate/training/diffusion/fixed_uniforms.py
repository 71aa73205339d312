"""Pseudo-random numbers in [0, 1) that depend on a block's own tokens alone.

They are the same for every model, step, batch and machine, so arms are compared on the same masks.

B blocks of T tokens.
"""

import torch
from torch import Tensor

from speciate.model.bit_mixing import logical_shift_right, mix_bits

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""Increment of splitmix64, as int64."""


def uniforms(token_BT: Tensor, key: int) -> Tensor:
    """Return a number in [0, 1) for each position of each block, (B, T) float64; each `key` gives other numbers."""
    position_T = mix_bits((torch.arange(token_BT.shape[1], device=token_BT.device) + 1) * GOLDEN + key)
    block_B1 = mix_bits(mix_bits(token_BT.long() * GOLDEN + position_T).sum(1, keepdim=True))
    return logical_shift_right(mix_bits(block_B1 + position_T), 11).double() * 2.0**-53
