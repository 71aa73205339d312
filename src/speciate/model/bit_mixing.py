"""Mix the bits of integers, for pseudo-random numbers that follow from what they belong to, and from nothing else.

The mixing function is the finaliser of splitmix64 (Steele et al. 2014), in the wrapping arithmetic of int64, so it
gives the same numbers on every machine.
"""

from torch import Tensor

FIRST, SECOND = (value - 2**64 for value in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""Multipliers of splitmix64's finaliser, as int64."""


def logical_shift_right(bits: Tensor, by: int) -> Tensor:
    """Shift int64 right and fill with zeros; torch's own shift copies the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def mix_bits(bits: Tensor) -> Tensor:
    """Hash int64 to int64 so that each output bit depends on all input bits."""
    bits = (bits ^ logical_shift_right(bits, 30)) * FIRST
    bits = (bits ^ logical_shift_right(bits, 27)) * SECOND
    return bits ^ logical_shift_right(bits, 31)
