"""Control: each token id has one fixed slot, drawn at random (hash layers, Roller et al. 2021).

The router knows only the token's id, so whatever its choices reveal about a domain, the vocabulary reveals. The ids are
shuffled and assigned to the slots in turn, so that slots own equally many ids, up to one. Each layer shuffles anew. Ids
that are added later go to the slots with the fewest.

N tokens, S slots, V vocabulary.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import RouterOptions
from speciate.model.initial_weights import generator
from speciate.model.module_hooks import HasTokenTable
from speciate.model.moe.token_slots import resize_slots
from speciate.model.moe.top_k_router import Scorer, Scores
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(RouterOptions):
    """Seed of the assignment."""

    seed: int = Field(0, ge=0)
    """Seed of the assignment of ids to slots, combined with the run's seed, so that runs have independent ones."""

    scores_all_slots: ClassVar[bool] = False
    reads_token_ids: ClassVar[bool] = True


class Router(HasTokenTable, Scorer):
    """Looks up the slot of each token id, with probability one."""

    slot_V: Tensor

    def __init__(self, options: Options, context: BuildContext, num_slots: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        shuffled_V = torch.randperm(
            context.vocabulary, generator=generator("hash", options.seed, context.seed, context.layer)
        )
        self.register_buffer("slot_V", shuffled_V % num_slots)

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """Return one-hot probabilities."""
        probs_NS = F.one_hot(self.slot_V[tokens.id_BT.flatten()], self.num_slots).to(x_ND.dtype)
        return Scores(probs_NS, probs_NS, None)

    def resize_vocabulary(self, vocabulary: int) -> None:
        """Give each added id to the slot with the fewest ids."""
        self.slot_V = resize_slots(self.slot_V, vocabulary, range(self.num_slots))
