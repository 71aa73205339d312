"""When training turns to which tokens (ATAT's curriculum): first the easy, then the middling, then the hard ones.

One definition, of which the originals have four: with borders (a, b), the stage at a share `progress` of the training
is 0 in [0, a), 1 in [a, b), 2 in [b, 1]; a border belongs to the later stage. A stage's tokens are those whose rank in
their own row's importance lies in [0, .3), [.3, .7), [.7, 1]; theirs is multiplied by 2, 1.5, 2.

B rows of T tokens.
"""

import torch
from torch import Tensor

BORDERS = {"default": (0.3, 0.7), "early": (0.2, 0.6), "late": (0.35, 0.8)}
"""Of the curricula that have stages."""
CLASSES = (0.0, 0.3, 0.7, 1.0)
"""Edges of easy, medium and hard."""
FACTORS = (2.0, 1.5, 2.0)
"""Of the importance of a stage's own tokens."""


def stage_at(borders: tuple[float, float], progress: float) -> int:
    """The stage, from 0, at this share of the training."""
    return sum(progress >= border for border in borders)


def ranks(importance_BT: Tensor, maskable_BT: Tensor) -> Tensor:
    """Each token's rank in its row's importance, in [0, 1); equal ones have one rank, their mean. 0 if not maskable."""
    value_BT = importance_BT.masked_fill(~maskable_BT, torch.inf)
    rising_BT = value_BT.sort(1).values
    below_BT = torch.searchsorted(rising_BT, value_BT)
    upto_BT = torch.searchsorted(rising_BT, value_BT, right=True)
    rank_BT = (below_BT + upto_BT - 1) / (2 * maskable_BT.sum(1, keepdim=True).clamp(min=1))
    return rank_BT.where(maskable_BT, 0.0)


def focused(importance_BT: Tensor, maskable_BT: Tensor, stage: int) -> Tensor:
    """The importance with that of the stage's own tokens multiplied."""
    rank_BT = ranks(importance_BT, maskable_BT)
    own_BT = (rank_BT >= CLASSES[stage]) & (rank_BT < CLASSES[stage + 1])
    return torch.where(own_BT, importance_BT * FACTORS[stage], importance_BT)
