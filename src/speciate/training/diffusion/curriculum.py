"""The curriculum of ATAT: which tokens training emphasises at its start, middle and end (easy, medium, hard).

The originals define it four times; here is one definition. With borders (a, b), the stage at a share `progress` of the
training is 0 in [0, a), 1 in [a, b) and 2 in [b, 1]; a border belongs to the later stage. A stage's tokens are those
whose relative rank of importance in their own row lies in [0, .3), [.3, .7) or [.7, 1]. Their importance is multiplied
by 2, 1.5 or 2.

B rows of T tokens.
"""

import torch
from torch import Tensor

BORDERS = {"default": (0.3, 0.7), "early": (0.2, 0.6), "late": (0.35, 0.8)}
"""Shares of the training at which stages 1 and 2 begin, for each curriculum that has stages."""
RANK_EDGES = (0.0, 0.3, 0.7, 1.0)
"""Relative ranks that separate easy, medium and hard tokens."""
BOOSTS = (2.0, 1.5, 2.0)
"""Factor on the importance of a stage's own tokens, for each stage."""


def stage_at(borders: tuple[float, float], progress: float) -> int:
    """Return the stage, 0 to 2, once a share `progress` of the training is done."""
    return sum(progress >= border for border in borders)


def relative_ranks(importance_BT: Tensor, maskable_BT: Tensor) -> Tensor:
    """Return each token's rank in its row's importance, in [0, 1); ties share their mean rank; 0 if not maskable."""
    value_BT = importance_BT.masked_fill(~maskable_BT, torch.inf)
    sorted_BT = value_BT.sort(1).values
    num_below_BT = torch.searchsorted(sorted_BT, value_BT)
    num_up_to_BT = torch.searchsorted(sorted_BT, value_BT, right=True)
    rank_BT = (num_below_BT + num_up_to_BT - 1) / (2 * maskable_BT.sum(1, keepdim=True).clamp(min=1))
    return rank_BT.where(maskable_BT, 0.0)


def boost_stage_tokens(importance_BT: Tensor, maskable_BT: Tensor, stage: int) -> Tensor:
    """Return the importance, multiplied for the tokens of `stage`."""
    rank_BT = relative_ranks(importance_BT, maskable_BT)
    in_stage_BT = (rank_BT >= RANK_EDGES[stage]) & (rank_BT < RANK_EDGES[stage + 1])
    return torch.where(in_stage_BT, importance_BT * BOOSTS[stage], importance_BT)
