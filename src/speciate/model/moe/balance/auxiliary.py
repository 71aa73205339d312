"""The auxiliary balancing loss (Shazeer et al. 2017; Fedus et al. 2021): weight x S sum_s f_s P_s.

f_s is the share of the choices that slot s has, P_s its mean probability; the gradient goes through P alone, and lowers
the probability of slots that were chosen often. At k > 1 f is over assignments (the right 1/k). `scope` says of which
tokens f and P are:

    sequence      of one block; the mean over blocks (DeepSeek-V2, 2405.04434): each block is to be even by itself
    micro_batch   of all blocks that run together on one process; among processes, and micro-batches, the mean of theirs
    global_batch  P as before; f of all processes' blocks and of the step's micro-batches so far (Qiu et al. 2025,
                  2501.11873): a slot may have one domain to itself as long as the whole batch is even

The last is exact among processes: S sum_s f_s P_s is linear in P, so the mean of theirs is the loss of their blocks
together. Among micro-batches it is not, for f is not known before the last of them; the first has its own f, the last
one the step's. Counting starts anew with every step. In evaluation each scope is that of the blocks at hand.

N tokens in B blocks of T, S slots.
"""

from typing import ClassVar, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import BalanceOptions
from speciate.model.moe.top_k_router import Balancer, Scores, load_balancing_loss
from speciate.model.token_batch import TokenBatch
from speciate.selection.selection import recomputing


class Options(BalanceOptions):
    """Strength and scope."""

    weight: float = Field(0.01, gt=0)
    """Weight of the loss, whose value is about 1."""
    scope: Literal["sequence", "micro_batch", "global_batch"] = "micro_batch"
    """Which tokens are to be spread evenly: those of a block, of a micro-batch, of a step."""

    acts_by: ClassVar[str | None] = "gradient"
    """How it moves a router's choices."""


class Balance(Balancer):
    """Adds the loss."""

    load_S: Tensor

    def __init__(self, options: Options, num_slots: int) -> None:
        super().__init__()
        self.weight, self.scope = options.weight, options.scope
        if self.scope == "global_batch":
            self.register_buffer("load_S", torch.zeros(num_slots))

    def forward(self, scores: Scores, chosen_NS: Tensor, tokens: TokenBatch) -> Tensor:
        """The weighted loss of one micro-batch, a scalar."""
        if self.scope == "micro_batch":
            return self.weight * load_balancing_loss(scores.noisy_NS, chosen_NS)
        num_slots = chosen_NS.shape[1]
        if self.scope == "sequence":
            shape = (*tokens.id_BT.shape, num_slots)
            share_BS, mean_BS = (values_NS.view(shape).mean(1) for values_NS in (chosen_NS, scores.noisy_NS))
            return self.weight * num_slots * (share_BS * mean_BS).sum(-1).mean()
        return self.weight * num_slots * self.share(chosen_NS).dot(scores.noisy_NS.mean(0))

    def share(self, chosen_NS: Tensor) -> Tensor:
        """f of the step so far, everybody's, (S); in evaluation of these tokens."""
        if not self.training:
            return chosen_NS.mean(0)
        if not recomputing():
            load_S = chosen_NS.sum(0)
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(load_S)
            self.load_S += load_S
        # a copy: what the gradient needs must outlive the next micro-batch's counting
        return self.load_S / self.load_S.sum()

    def after_update(self) -> None:
        """Starts to count anew."""
        self.rest()

    def rest(self) -> None:
        """Forgets what was counted."""
        if self.scope == "global_batch":
            self.load_S.zero_()
