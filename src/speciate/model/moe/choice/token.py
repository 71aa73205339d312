"""Token choice: each token takes its `top_k` best slots (Shazeer et al. 2017), or those of them that have room.

    chosen = top-k of g' (+ b);   weight = g' / sum of the chosen g'      rows sum to one (Mixtral, DeepSeek-V3)
                                  k = 1: 1 + (g' - sg[g'])                straight through: 1 in the forward pass
                                  renormalise: false: g' itself           Switch at k = 1, OLMoE

Capacity, where it is set (Lepikhin et al. 2020; Fedus et al. 2021): in each context a slot takes at most

    c = ceil(capacity_factor k M / S),   M the number of tokens that a full context sends to the layer in training

tokens, those that come first. M is the model's context, times the share that a Mixture-of-Depths lets through. So c is
a constant of the model: a text is served alike alone, in a batch, in front of other tokens, and token by token. Where
documents are kept apart, each is a context of its own, so one document never uses up another's capacity.

Choices beyond c are dropped: they add nothing to the residual stream, and the other weights of the token do not change.
Whether a choice is dropped depends on earlier tokens alone, because all choices of one token come before any of the
next. GShard's order, first choices before second ones, would let a later token push out an earlier one. Training and
evaluation drop alike; metric `dropped_share` records the share of dropped choices. The Selection reports all choices,
dropped or not.

N tokens in B blocks of T, S slots, K slots of a token, A = T K choices of a block.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import ChoiceOptions
from speciate.model.cache import Cache
from speciate.model.moe.top_k_router import Chosen, normalised_weights, slot_capacity
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import record_metric


class Options(ChoiceOptions):
    """Weights of the chosen slots, and capacity."""

    renormalise: bool = True
    """Scale the weights of a token's slots to sum to one; false: use the router's gates as they are."""
    capacity_factor: float | None = Field(None, gt=0)
    """Capacity of a slot, as a multiple of its even share of a full context's choices; null: unlimited."""


class Choose(nn.Module):
    """Takes each token's best slots, as far as they have room."""

    def __init__(self, options: Options, context: BuildContext, num_slots: int, top_k: int) -> None:
        super().__init__()
        self.options, self.num_slots, self.top_k = options, num_slots, top_k
        self.capacity: int | None = None
        if options.capacity_factor is not None:
            share = context.model.block_of(context.layer).depth.share_running()
            num_tokens = max(1, round(share * context.model.context))
            self.capacity = slot_capacity(num_tokens, num_slots, top_k, options.capacity_factor)
        self.cached_as = Cache.feed_forward_key(context.layer)

    def forward(self, order_NS: Tensor, gate_NS: Tensor, tokens: TokenBatch) -> Chosen:
        """Choose by `order_NS`, with weights from `gate_NS`."""
        slot_NK = order_NS.topk(self.top_k, dim=-1).indices
        chosen_NS = torch.zeros_like(gate_NS).scatter_(1, slot_NK, 1 / self.top_k)
        gate_NK = gate_NS.gather(1, slot_NK)
        weight_NK = normalised_weights(gate_NK) if self.options.renormalise else gate_NK
        if self.capacity is None:
            return Chosen(slot_NK, weight_NK, chosen_NS)
        kept_NK = self.ranks(slot_NK, tokens) <= self.capacity
        record_metric(self, "dropped_share", 1 - kept_NK[tokens.real_BT.flatten()].double())
        return Chosen(slot_NK, weight_NK, chosen_NS, kept_NK)

    def ranks(self, slot_NK: Tensor, tokens: TokenBatch) -> Tensor:
        """Return which of its context's choices of a slot each choice is, from 1, (N, K); padding does not count."""
        num_blocks, length = tokens.id_BT.shape
        slot_BA = slot_NK.view(num_blocks, length * self.top_k)
        taken_BAS = F.one_hot(slot_BA, self.num_slots)
        taken_BAS = taken_BAS * tokens.real_BT.repeat_interleave(self.top_k, 1).unsqueeze(-1)
        count_BAS = taken_BAS.cumsum(1)
        rank_BA = count_BAS.gather(2, slot_BA.unsqueeze(-1)).squeeze(-1)
        if tokens.document_BT is not None:
            # less what was counted before the token's context began
            first_BA = self.top_k * tokens.context_start_BT().repeat_interleave(self.top_k, 1)
            before_BAS = F.pad(count_BAS, (0, 0, 1, 0)).gather(1, first_BA.unsqueeze(-1).expand_as(count_BAS))
            rank_BA = rank_BA - before_BAS.gather(2, slot_BA.unsqueeze(-1)).squeeze(-1)
        if tokens.cache is not None:
            earlier = tokens.cache.state(self.cached_as)
            earlier_BS = torch.zeros_like(count_BAS[:, -1]) if earlier is None else earlier[0]
            rank_BA = rank_BA + earlier_BS.gather(1, slot_BA)
            tokens.cache.set_state(self.cached_as, earlier_BS + count_BAS[:, -1])
        return rank_BA.view_as(slot_NK)
