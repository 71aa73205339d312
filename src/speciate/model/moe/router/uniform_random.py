"""Control: every token goes to random slots, whatever the token, its context and its past.

    training: the slots with the largest fresh uniform numbers
    evaluation: numbers hashed from the whole context up to the token

The probabilities are 1/S for each slot; at k > 1 the weights are 1/k. There is no noise to anneal and no domain to
find: whatever the analysis finds here is an artefact of the analysis. In evaluation a token's slots follow from its
context, the layer and a key that is drawn from the run's seed and saved with the weights. So two evaluations agree, in
whatever batch a text stands, and yet no token id, position or domain has slots of its own.

N tokens, S slots.
"""

from typing import ClassVar

import torch
from torch import Tensor

from speciate.config.contracts.model import RouterOptions
from speciate.model.bit_mixing import logical_shift_right, mix_bits
from speciate.model.initial_weights import generator
from speciate.model.moe.top_k_router import Scorer, Scores
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(RouterOptions):
    """No options."""

    balanced_by: ClassVar[tuple[str, ...]] = ("choice",)
    reads_token_ids: ClassVar[bool] = True


class Router(Scorer):
    """Scores slots at random."""

    key: Tensor

    def __init__(self, options: Options, context: BuildContext, num_slots: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        draw = generator("uniform_random", context.seed, context.layer)
        # saved with the weights: whoever reads the run must choose as its trainer did
        self.register_buffer("key", torch.randint(2**62, (), generator=draw, device="cpu"))

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """Return equal probabilities, and random numbers by which slots are chosen."""
        probs_NS = x_ND.new_full((x_ND.shape[0], self.num_slots), 1 / self.num_slots)
        return Scores(probs_NS, probs_NS, None, order_NS=self.order(probs_NS, tokens))

    def order(self, like_NS: Tensor, tokens: TokenBatch) -> Tensor:
        """Return a number in [0, 1) for each token and slot."""
        if self.training:
            return torch.rand_like(like_NS)
        key_N = mix_bits(tokens.context_hash_BT.flatten() + self.key)
        slot_S = torch.arange(self.num_slots, device=like_NS.device)
        # 24 upper bits: as many as a float32 holds exactly
        return logical_shift_right(mix_bits(key_N.unsqueeze(1) + slot_S), 40).to(like_NS.dtype) / 2**24
