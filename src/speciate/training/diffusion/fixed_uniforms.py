"""Pseudo-random numbers in [0, 1) that depend on a block's own tokens alone.

They are the same for every model, step, batch and machine, so arms are compared on the same masks.
The mixing function is that of splitmix64 (Steele et al. 2014), in the wrapping arithmetic of int64.

B blocks of T tokens.
"""

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""Constants of splitmix64, as int64."""


def _logical_shift_right(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift copies the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def mix_bits(bits: Tensor) -> Tensor:
    """Hash int64 to int64 so that each output bit depends on all input bits."""
    bits = (bits ^ _logical_shift_right(bits, 30)) * FIRST
    bits = (bits ^ _logical_shift_right(bits, 27)) * SECOND
    return bits ^ _logical_shift_right(bits, 31)


def uniforms(token_BT: Tensor, key: int) -> Tensor:
    """Return a number in [0, 1) for each position of each block, (B, T) float64; each `key` gives other numbers."""
    position_T = mix_bits((torch.arange(token_BT.shape[1], device=token_BT.device) + 1) * GOLDEN + key)
    block_B1 = mix_bits(mix_bits(token_BT.long() * GOLDEN + position_T).sum(1, keepdim=True))
    return _logical_shift_right(mix_bits(block_B1 + position_T), 11).double() * 2.0**-53
