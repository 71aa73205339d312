"""Control: each token id has one fixed slot, drawn at random (hash layers, Roller et al. 2021).

The router knows only the token's id, so whatever its choices reveal about a domain, the vocabulary reveals. The ids are
shuffled and assigned to the slots in turn, so that slots own equally many ids, up to one. Each layer shuffles anew.

N tokens, S slots, V vocabulary.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import RouterOptions
from speciate.model.initial_weights import generator
from speciate.model.moe.top_k_router import Scorer, Scores
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(RouterOptions):
    """Seed of the assignment."""

    seed: int = Field(0, ge=0)
    """Seed of the assignment of ids to slots, combined with the run's seed, so that runs have independent ones."""

    scores_all_slots: ClassVar[bool] = False


class Router(Scorer):
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
