"""The auxiliary balancing loss (Shazeer et al. 2017; Fedus et al. 2021): weight x S sum_s f_s P_s.

f_s is the share of the choices that fall on slot s, P_s its mean probability. The gradient goes through P alone and
lowers the probability of slots that are chosen often. At k > 1, f is over assignments (the right 1/k). `scope` says
over which tokens f and P are computed:

    sequence      one block; the loss is the mean over blocks (DeepSeek-V2, 2405.04434): each block should be even
    micro_batch   all blocks that run together on one process; the loss is the mean over processes and micro-batches
    global_batch  P as before; f over all processes' blocks and the step's micro-batches so far (Qiu et al. 2025,
                  2501.11873): a slot may serve one domain alone as long as the whole batch is even

The last is exact over processes: S sum_s f_s P_s is linear in P, so the mean of their losses is the loss of all their
blocks. Over micro-batches it is not exact, because f is not known before the last of them: the first one has its own f,
the last one the step's. The counts restart with every step. In evaluation each scope covers the blocks at hand.

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
from speciate.selection.selection import is_recomputing


class Options(BalanceOptions):
    """Weight and scope of the loss."""

    weight: float = Field(0.01, ge=0)
    """Weight of the loss, whose unweighted value is about 1; 0 balances nothing, as the end of a sweep."""
    scope: Literal["sequence", "micro_batch", "global_batch"] = "micro_batch"
    """Tokens whose load is balanced: those of a block (`sequence`), of a micro-batch, or of a step (`global_batch`)."""

    acts_by: ClassVar[str | None] = "gradient"


class Balance(Balancer):
    """Adds the balancing loss."""

    load_S: Tensor

    def __init__(self, options: Options, num_slots: int) -> None:
        super().__init__()
        self.weight, self.scope = options.weight, options.scope
        if self.scope == "global_batch":
            self.register_buffer("load_S", torch.zeros(num_slots))

    def forward(self, scores: Scores, chosen_NS: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the weighted loss of one micro-batch, a scalar."""
        if self.scope == "micro_batch":
            return self.weight * load_balancing_loss(scores.noisy_NS, chosen_NS, tokens)
        num_slots = chosen_NS.shape[1]
        if self.scope == "sequence":
            share_BS, mean_BS = map(tokens.mean_by_block, (chosen_NS, scores.noisy_NS))
            return self.weight * num_slots * (share_BS * mean_BS).sum(-1).mean()
        return self.weight * num_slots * self.share(chosen_NS, tokens).dot(tokens.mean(scores.noisy_NS))

    def share(self, chosen_NS: Tensor, tokens: TokenBatch) -> Tensor:
        """Return f, (S): of the step so far over all processes; in evaluation, of these tokens."""
        if not self.training:
            return tokens.mean(chosen_NS)
        if not is_recomputing():
            load_S = tokens.sum(chosen_NS)
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(load_S)
            self.load_S += load_S
        # a new tensor: the gradient needs it after the next micro-batch has changed load_S
        return self.load_S / self.load_S.sum().clamp_min(1)

    def after_update(self) -> None:
        """Restart the counts."""
        self.reset()

    def reset(self) -> None:
        """Forget the counts."""
        if self.scope == "global_batch":
            self.load_S.zero_()
