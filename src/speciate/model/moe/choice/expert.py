"""Expert choice (Zhou et al. 2022): each slot takes the tokens of a block that score it highest, as many as fit.

    tokens of slot s = top-c over the block's tokens n of g'_ns,   c = ceil(capacity_factor k T / S);   weight = g'_ns

Every slot is full, so the load is even without balancing. A token has as many slots as took it: k times
`capacity_factor` on average, often none. Whether a slot takes a token depends on later tokens, so such a model's loss
is not a likelihood, and it cannot generate. Hence a causal model refuses it without `non_causal: true`.

Decision: a slot takes its tokens from one block, or from one document where documents are kept apart, in training and
evaluation alike. So no context's result depends on the rest of its block or batch; Zhou et al. take tokens from a
batch. T is the number of tokens that come to the layer; behind a Mixture-of-Depths these are those that run. As in
their paper, the weight is the router's probability.

The Selection reports decisions about tokens that were taken: 1/m on each of a token's m slots. The other tokens bypass
the layer; metric `untaken_share` records how many they are.

N tokens in B blocks of T, S slots, C tokens of a slot.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import ChoiceOptions
from speciate.model.moe.top_k_router import ROUNDING, Chosen, slot_capacity
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import record_metric


class Options(ChoiceOptions):
    """Capacity, and permission to look ahead."""

    capacity_factor: float = Field(1.0, gt=0)
    """Number of tokens that a slot takes, as a multiple of its even share of a block's choices (`top_k` a token)."""
    non_causal: bool = False
    """Allow this component to look at later tokens; the loss of such an arm is not a likelihood."""

    balances: ClassVar[bool] = True
    breaks_causality: ClassVar[str] = "whether an expert takes a token depends on the block's later tokens"
    """How it looks at later tokens, for messages."""

    def share(self, num_slots: int, top_k: int) -> float:
        """Return the share of the slots that a token uses on average."""
        return min(1.0, self.capacity_factor * top_k / num_slots)

    def looks_ahead(self) -> bool:
        """Return whether the config allows it to look ahead."""
        return self.non_causal

    def needs_whole_block(self) -> bool:
        """Return True: an expert chooses among all tokens of a block."""
        return True

    def check(self, model: Any) -> None:
        """Refuse a causal model, unless the config allows looking ahead."""
        if model.causal and not self.non_causal:
            raise ValueError(
                f"choice: expert: {self.breaks_causality}, so the loss of a causal model would be no likelihood; "
                "non_causal: true allows it"
            )


class Choose(nn.Module):
    """Lets each slot take its best tokens."""

    def __init__(self, options: Options, context: BuildContext, num_slots: int, top_k: int) -> None:
        super().__init__()
        self.factor, self.num_slots, self.top_k = options.capacity_factor, num_slots, top_k

    def forward(self, order_NS: Tensor, gate_NS: Tensor, tokens: TokenBatch) -> Chosen:
        """Choose by `order_NS`, with weights from `gate_NS`.

        Raises:
            ValueError: tokens come one by one (there is a cache), but slots choose from a whole block.
        """
        if tokens.cache is not None:
            raise ValueError(
                "choice: expert: chooses among the tokens of a whole block; it cannot generate token by token"
            )
        order_BTS = order_NS.view(*tokens.id_BT.shape, -1)
        one_context = tokens.document_BT is None and not tokens.padded
        kept_NS = (self.taken_of_blocks if one_context else self.taken_of_contexts)(order_BTS, tokens).flatten(0, 1)
        count_N1 = kept_NS.sum(-1, keepdim=True)
        slot_NS = torch.arange(self.num_slots, device=gate_NS.device).expand_as(kept_NS)
        served_N = count_N1.squeeze(-1) > 0
        record_metric(self, "untaken_share", 1 - served_N[tokens.real_BT.flatten()].double())
        chosen_NS = kept_NS.to(gate_NS.dtype) / count_N1.clamp(min=1)
        return Chosen(slot_NS, gate_NS, chosen_NS, kept_NS, served_N)

    def taken_of_blocks(self, order_BTS: Tensor, tokens: TokenBatch) -> Tensor:
        """Return which tokens each slot takes, (B, T, S) boolean, where every block is one context without padding."""
        capacity = slot_capacity(order_BTS.shape[1], self.num_slots, self.top_k, self.factor)
        column_BCS = order_BTS.topk(capacity, dim=1).indices
        return torch.zeros_like(order_BTS, dtype=torch.bool).scatter_(1, column_BCS, True)

    def taken_of_contexts(self, order_BTS: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the same where blocks hold several contexts, or padding, which no slot takes.

        A context's capacity follows from its own number of real tokens, so contexts are served as each would be alone.
        """
        context_BT = tokens.context_start_BT().where(tokens.real_BT, order_BTS.shape[1])
        context_BTS = context_BT.unsqueeze(-1).expand_as(order_BTS)
        # by context, and in it by score
        by_score_BTS = order_BTS.argsort(dim=1, descending=True, stable=True)
        sorted_BTS, by_context_BTS = context_BTS.gather(1, by_score_BTS).sort(dim=1, stable=True)
        column_BTS = by_score_BTS.gather(1, by_context_BTS)
        size_BC = torch.zeros(len(context_BT), order_BTS.shape[1] + 1, dtype=torch.long, device=order_BTS.device)
        size_BT = size_BC.scatter_add(1, context_BT, torch.ones_like(context_BT)).gather(1, context_BT)
        place_T1 = torch.arange(order_BTS.shape[1], device=order_BTS.device).unsqueeze(-1)
        begin_BTS = torch.searchsorted(sorted_BTS.mT.contiguous(), sorted_BTS.mT.contiguous()).mT
        rank_BTS = torch.empty_like(column_BTS).scatter_(1, column_BTS, place_T1 - begin_BTS)
        even_BT = self.factor * self.top_k / self.num_slots * size_BT.double()
        capacity_BT = torch.minimum((even_BT - ROUNDING).ceil(), size_BT.double())
        return (rank_BTS < capacity_BT.unsqueeze(-1)) & tokens.real_BT.unsqueeze(-1)
