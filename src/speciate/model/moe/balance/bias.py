"""Loss-free balancing (Wang et al. 2024, 2408.15664): a bias on each slot that only affects the choice.

    chosen = top-k of p + b;   after each step   b_s += rate sign(mean load - load_s)

The weights are still made of p, so balancing changes no gradient. The load of a step is summed over all its
micro-batches and over all processes, so that their biases stay equal. While balancing is off, the biases are 0.

N tokens, S slots.
"""

from typing import ClassVar

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import BalanceOptions
from speciate.model.moe.top_k_router import Balancer, Scores
from speciate.model.token_batch import TokenBatch
from speciate.selection.selection import is_recomputing


class Options(BalanceOptions):
    """Speed of the biases."""

    rate: float = Field(0.001, gt=0)
    """How far a bias moves in one step, on the scale of a probability."""

    acts_by: ClassVar[str | None] = "choice"


class Balance(Balancer):
    """Holds the biases, and the load since the last step."""

    bias_S: Tensor
    load_S: Tensor

    def __init__(self, options: Options, num_slots: int) -> None:
        super().__init__()
        self.rate = options.rate
        self.register_buffer("bias_S", torch.zeros(num_slots))
        self.register_buffer("load_S", torch.zeros(num_slots))

    def adjust_scores(self, order_NS: Tensor) -> Tensor:
        """Return the probabilities (of a sigmoid router: the gates) plus the bias, p + b."""
        return order_NS + self.bias_S

    def forward(self, scores: Scores, chosen_NS: Tensor, tokens: TokenBatch) -> Tensor:
        """Count the load in training; return no loss."""
        if self.training and not is_recomputing():
            self.load_S += tokens.sum(chosen_NS)
        return super().forward(scores, chosen_NS, tokens)

    def after_update(self) -> None:
        """Move each bias against its slot's load."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.load_S)
        self.bias_S += self.rate * (self.load_S.mean() - self.load_S).sign()
        self.load_S.zero_()

    def reset(self) -> None:
        """Set the biases to 0."""
        self.bias_S.zero_()
        self.load_S.zero_()
