"""Each token takes its `top_k` best slots (Shazeer et al. 2017), all of them, or as many as have room.

    chosen = top-k of g' (+ b);   weight = g' / sum of the chosen g'      rows sum to one (Mixtral, DeepSeek-V3)
                                  k = 1: 1 + (g' - sg[g'])                straight through: 1 forward
                                  renormalise: false: g' itself           Switch at k = 1, OLMoE

Capacity, where it is set (Lepikhin et al. 2020; Fedus et al. 2021): in each block a slot takes at most

    c = ceil(capacity_factor k T / S)

tokens, those that come first; what a slot has no room for is dropped: it adds nothing to the residual stream, and the
other weights of its token stay as they were. A token's drop depends on those before it alone, since all choices of one
token come before any of the next: first choices before second ones, the way of GShard, would let a later token push
out an earlier one. It is the same in training and evaluation, and counted: `dropped_share` of the choices. The
Selection reports what was chosen, dropped or not.

N tokens in B blocks of T, S slots, K slots of a token, A = T K choices of a block.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import ChoiceOptions
from speciate.model.moe.top_k_router import Chosen, room, weights
from speciate.model.token_batch import TokenBatch
from speciate.selection.metrics import record_metric


class Options(ChoiceOptions):
    """Weights and capacity."""

    renormalise: bool = True
    """Weights of a token's slots sum to one; false: they are what the router gave them."""
    capacity_factor: float | None = Field(None, gt=0)
    """Room of a slot in units of its even share of a block's choices; null: there is always room."""

    balances: ClassVar[bool] = False
    """Whether the load is even by the choice itself."""
    """How it looks at later tokens."""

    def needs_whole_block(self) -> bool:
        """Return whether experts have a limited capacity, which a block's tokens share."""
        return self.capacity_factor is not None

    def share(self, num_slots: int, top_k: int) -> float:
        """The share of the slots that a token uses on average, at most."""
        return top_k / num_slots


class Choose(nn.Module):
    """Takes the best, as far as there is room."""

    def __init__(self, options: Options, num_slots: int, top_k: int) -> None:
        super().__init__()
        self.options, self.num_slots, self.top_k = options, num_slots, top_k

    def forward(self, order_NS: Tensor, gate_NS: Tensor, tokens: TokenBatch) -> Chosen:
        """The choice by `order_NS`, weighted by `gate_NS`.

        Raises:
            ValueError: tokens come one by one (a cache), where capacity counts those of a block.
        """
        slot_NK = order_NS.topk(self.top_k, dim=-1).indices
        chosen_NS = torch.zeros_like(gate_NS).scatter_(1, slot_NK, 1 / self.top_k)
        gate_NK = gate_NS.gather(1, slot_NK)
        weight_NK = weights(gate_NK) if self.options.renormalise else gate_NK
        if self.options.capacity_factor is None:
            return Chosen(slot_NK, weight_NK, chosen_NS)
        if tokens.cache is not None:
            raise ValueError("choice.capacity_factor: is a share of a whole block; it cannot generate token by token")
        kept_NK = self.fitting(slot_NK, tokens.index_BT >= 0, self.options.capacity_factor)
        record_metric(self, "dropped_share", 1 - kept_NK[tokens.index_BT.flatten() >= 0].double())
        return Chosen(slot_NK, weight_NK, chosen_NS, kept_NK)

    def fitting(self, slot_NK: Tensor, real_BT: Tensor, factor: float) -> Tensor:
        """Which choices have room, (N, K) boolean; padding, where `real_BT` is false, takes none."""
        num_blocks, length = real_BT.shape
        slot_BA = slot_NK.view(num_blocks, length * self.top_k)
        taken_BAS = F.one_hot(slot_BA, self.num_slots) * real_BT.repeat_interleave(self.top_k, 1).unsqueeze(-1)
        place_BA = taken_BAS.cumsum(1).gather(2, slot_BA.unsqueeze(-1))
        return (place_BA <= room(length, self.num_slots, self.top_k, factor)).view_as(slot_NK)
