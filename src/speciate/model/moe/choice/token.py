"""Token choice: each token takes its `top_k` best slots (Shazeer et al. 2017), or those of them that have room.

    chosen = top-k of g' (+ b);   weight = g' / sum of the chosen g'      rows sum to one (Mixtral, DeepSeek-V3)
                                  k = 1: 1 + (g' - sg[g'])                straight through: 1 in the forward pass
                                  renormalise: false: g' itself           Switch at k = 1, OLMoE

Capacity, where it is set (Lepikhin et al. 2020; Fedus et al. 2021): in each block a slot takes at most

    c = ceil(capacity_factor k T / S)

tokens, those that come first. Choices beyond that are dropped: they add nothing to the residual stream, and the other
weights of the token do not change. Whether a choice is dropped depends on earlier tokens alone, because all choices of
one token come before any of the next. GShard's order, first choices before second ones, would let a later token push
out an earlier one. Training and evaluation drop alike; metric `dropped_share` records the share of dropped choices. The
Selection reports all choices, dropped or not.

N tokens in B blocks of T, S slots, K slots of a token, A = T K choices of a block.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import ChoiceOptions
from speciate.model.moe.top_k_router import Chosen, normalised_weights, slot_capacity
from speciate.model.token_batch import TokenBatch
from speciate.selection.metrics import record_metric


class Options(ChoiceOptions):
    """Weights of the chosen slots, and capacity."""

    renormalise: bool = True
    """Scale the weights of a token's slots to sum to one; false: use the router's gates as they are."""
    capacity_factor: float | None = Field(None, gt=0)
    """Capacity of a slot, as a multiple of its even share of a block's choices; null: unlimited."""

    def needs_whole_block(self) -> bool:
        """Return whether experts have a limited capacity, which a block's tokens share."""
        return self.capacity_factor is not None


class Choose(nn.Module):
    """Takes each token's best slots, as far as they have room."""

    def __init__(self, options: Options, num_slots: int, top_k: int) -> None:
        super().__init__()
        self.options, self.num_slots, self.top_k = options, num_slots, top_k

    def forward(self, order_NS: Tensor, gate_NS: Tensor, tokens: TokenBatch) -> Chosen:
        """Choose by `order_NS`, with weights from `gate_NS`.

        Raises:
            ValueError: tokens come one by one (there is a cache), but capacity counts the tokens of a whole block.
        """
        slot_NK = order_NS.topk(self.top_k, dim=-1).indices
        chosen_NS = torch.zeros_like(gate_NS).scatter_(1, slot_NK, 1 / self.top_k)
        gate_NK = gate_NS.gather(1, slot_NK)
        weight_NK = normalised_weights(gate_NK) if self.options.renormalise else gate_NK
        if self.options.capacity_factor is None:
            return Chosen(slot_NK, weight_NK, chosen_NS)
        if tokens.cache is not None:
            raise ValueError(
                "choice.capacity_factor: counts the tokens of a whole block; the model cannot generate token by token"
            )
        kept_NK = self.choices_with_room(slot_NK, tokens.index_BT >= 0, self.options.capacity_factor)
        record_metric(self, "dropped_share", 1 - kept_NK[tokens.index_BT.flatten() >= 0].double())
        return Chosen(slot_NK, weight_NK, chosen_NS, kept_NK)

    def choices_with_room(self, slot_NK: Tensor, real_BT: Tensor, factor: float) -> Tensor:
        """Tell which choices have room, (N, K) boolean; padding, where `real_BT` is false, takes none."""
        num_blocks, length = real_BT.shape
        slot_BA = slot_NK.view(num_blocks, length * self.top_k)
        taken_BAS = F.one_hot(slot_BA, self.num_slots) * real_BT.repeat_interleave(self.top_k, 1).unsqueeze(-1)
        rank_BA = taken_BAS.cumsum(1).gather(2, slot_BA.unsqueeze(-1))
        return (rank_BA <= slot_capacity(length, self.num_slots, self.top_k, factor)).view_as(slot_NK)
