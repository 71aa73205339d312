"""Expert choice (Zhou et al. 2022): each slot takes the tokens of a block that score it highest, as many as fit.

    tokens of slot s = top-c over the block's tokens n of g'_ns,   c = ceil(capacity_factor k T / S);   weight = g'_ns

Every slot is full, so the load is even without balancing. A token has as many slots as took it: k times
`capacity_factor` on average, often none. Whether a slot takes a token depends on later tokens, so such a model's loss
is not a likelihood, and it cannot generate. Hence a causal model refuses it without `non_causal: true`.

Decision: a slot takes its tokens from one block, in training and evaluation alike, so that no block's result depends on
the rest of its batch; Zhou et al. take them from a batch. As in their paper, the weight is the router's probability.

The Selection reports decisions about tokens that were taken: 1/m on each of a token's m slots. The other tokens bypass
the layer; metric `untaken_share` records how many they are.

N tokens in B blocks of T, S slots, C tokens of a slot.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import ChoiceOptions
from speciate.model.moe.top_k_router import Chosen, slot_capacity
from speciate.model.token_batch import TokenBatch
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

    def __init__(self, options: Options, num_slots: int, top_k: int) -> None:
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
        real_BT1 = (tokens.index_BT >= 0).unsqueeze(-1)
        order_BTS = order_NS.view(*tokens.index_BT.shape, -1).masked_fill(~real_BT1, -torch.inf)
        column_BCS = order_BTS.topk(
            slot_capacity(order_BTS.shape[1], self.num_slots, self.top_k, self.factor), dim=1
        ).indices
        taken_BTS = torch.zeros_like(order_BTS, dtype=torch.bool).scatter_(1, column_BCS, True) & real_BT1
        kept_NS = taken_BTS.flatten(0, 1)
        count_N1 = kept_NS.sum(-1, keepdim=True)
        slot_NS = torch.arange(self.num_slots, device=gate_NS.device).expand_as(kept_NS)
        served_N = count_N1.squeeze(-1) > 0
        record_metric(self, "untaken_share", 1 - served_N[real_BT1.flatten()].double())
        chosen_NS = kept_NS.to(gate_NS.dtype) / count_N1.clamp(min=1)
        return Chosen(slot_NS, gate_NS, chosen_NS, kept_NS, served_N)
