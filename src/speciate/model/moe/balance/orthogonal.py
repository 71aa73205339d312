"""Balancing by an orthogonal router matrix (SimBal, Omi et al. 2025, 2506.14038), without counting any load.

    weight x || R R^T - I ||_1,   R the router's last matrix, a row a slot; the sum over all S^2 entries

Orthonormal rows keep the angles between tokens. So similar tokens go to the same slots, and dissimilar ones are not all
drawn to one slot. The loss balances only as far as the tokens themselves are spread: the load does not enter it.

S slots, D inputs of the matrix.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import BalanceOptions
from speciate.model.moe.top_k_router import Balancer, Scores
from speciate.model.token_batch import TokenBatch


class Options(BalanceOptions):
    """Weight of the loss."""

    weight: float = Field(0.1, gt=0)
    """Weight of the loss, whose unweighted value is S for rows of length 0."""

    acts_by: ClassVar[str | None] = "gradient"


class Balance(Balancer):
    """Adds the orthogonality loss."""

    def __init__(self, options: Options, num_slots: int) -> None:
        super().__init__()
        self.weight = options.weight

    def forward(self, scores: Scores, chosen_NS: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the weighted loss, a scalar, the same for every micro-batch of a step."""
        assert scores.matrix_SD is not None, "the config refuses this balance for a router without a matrix"
        gram_SS = scores.matrix_SD @ scores.matrix_SD.T
        return self.weight * (gram_SS - torch.eye(len(gram_SS), device=gram_SS.device)).abs().sum()
