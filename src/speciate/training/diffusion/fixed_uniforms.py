"""Numbers in [0, 1) that look random and depend on a block's own tokens alone: the same for every model, step, batch
and machine, so that arms are compared on the same masks.

Mixing is that of splitmix64 (Steele et al. 2014), in the wrapping arithmetic of int64.

B blocks of T tokens.
"""

import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""As int64."""


def _right(bits: Tensor, by: int) -> Tensor:
    """Shifted right with zeros moving in; torch's own shift copies the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def mixed(bits: Tensor) -> Tensor:
    """int64 -> int64, each bit of the result depending on all."""
    bits = (bits ^ _right(bits, 30)) * FIRST
    bits = (bits ^ _right(bits, 27)) * SECOND
    return bits ^ _right(bits, 31)


def uniforms(token_BT: Tensor, key: int) -> Tensor:
    """One number in [0, 1) for each position of each block, (B, T) float64; another `key`, other numbers."""
    place_T = mixed((torch.arange(token_BT.shape[1], device=token_BT.device) + 1) * GOLDEN + key)
    block_B1 = mixed(mixed(token_BT.long() * GOLDEN + place_T).sum(1, keepdim=True))
    return _right(mixed(block_B1 + place_T), 11).double() * 2.0**-53
