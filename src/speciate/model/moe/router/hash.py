"""Control: each token id has one slot, drawn at random and fixed (hash layers, Roller et al. 2021).

The token's identity is all it knows, so whatever such a router tells of a domain, the vocabulary tells. The ids are
shuffled and dealt out in turn: slots own equally many ids, up to one. Each layer deals anew.

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
    """The deal."""

    seed: int = Field(0, ge=0)
    """Seed of the deal, beside the run's own: the runs of a study have independent deals."""

    balanced_by: ClassVar[tuple[str, ...]] = ()
    """The ways of balancing that can move this router's choices."""
    scores_all_slots: ClassVar[bool] = False
    """Whether it orders all slots, so that more than one can be chosen."""


class Router(Scorer):
    """Looks the slot up: probability one."""

    slot_V: Tensor

    def __init__(self, options: Options, place: BuildContext, num_slots: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        dealt_V = torch.randperm(place.vocabulary, generator=generator("hash", options.seed, place.seed, place.layer))
        self.register_buffer("slot_V", dealt_V % num_slots)

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """One-hot probabilities."""
        probs_NS = F.one_hot(self.slot_V[tokens.id_BT.flatten()], self.num_slots).to(x_ND.dtype)
        return Scores(probs_NS, probs_NS, None)
