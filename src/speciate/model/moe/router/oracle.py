"""Control: the domain of the text decides. What a router would do that knew the domains and nothing else to divide by.

    slots of domain d = {s : s mod domains = d};   among them the token's id decides, dealt as `hash` deals

Every domain has slots of its own, so the domain is known from the slot: the most specialised routing there is. Beside
it a learned router shows how far it came, and whether dividing by domain serves the loss at all.

A block is of one domain (data/blocks.py), which the trainer and the evaluation tell (`Tokens.domain_BT`); text of which
no domain is known, a prompt above all, cannot be routed.

N tokens, S slots, V vocabulary, G domains.
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
    """The domains and the deal."""

    domains: int = Field(ge=1)
    """Domains of the study."""
    seed: int = Field(0, ge=0)
    """Seed of the deal within a domain, beside the run's own."""

    balanced_by: ClassVar[tuple[str, ...]] = ()
    """The ways of balancing that can move this router's choices."""
    scores_all_slots: ClassVar[bool] = False
    """Whether it orders all slots, so that more than one can be chosen."""

    def check_slots(self, num_slots: int) -> None:
        """Refuses fewer slots than domains."""
        if num_slots < self.domains:
            raise ValueError(f"router: oracle gives each of {self.domains} domains a slot, and there are {num_slots}")

    def check_domains(self, domains: tuple[str, ...]) -> None:
        """Refuses a study of another number of domains."""
        if len(domains) != self.domains:
            raise ValueError(f"router: oracle is told of {self.domains} domains, and the study has {len(domains)}")


class Router(Scorer):
    """Looks the slot up: probability one."""

    slot_GV: Tensor

    def __init__(self, options: Options, place: BuildContext, num_slots: int) -> None:
        super().__init__()
        self.num_slots, self.domains = num_slots, options.domains
        dealt_V = torch.randperm(place.vocabulary, generator=generator("oracle", options.seed, place.seed, place.layer))
        own = [torch.arange(domain, num_slots, options.domains) for domain in range(options.domains)]
        self.register_buffer("slot_GV", torch.stack([slots[dealt_V % len(slots)] for slots in own]))

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """One-hot probabilities.

        Raises:
            ValueError: nobody says which domain the tokens are of, or it is none of the study's.
        """
        if tokens.domain_BT is None:
            raise ValueError("router: oracle needs the domain of every text, and this one's is not known")
        if int(tokens.domain_BT.max()) >= self.domains:
            raise ValueError(f"router: oracle is told of {self.domains} domains, and there are more")
        slot_N = self.slot_GV[tokens.domain_BT, tokens.id_BT].flatten()
        probs_NS = F.one_hot(slot_N, self.num_slots).to(x_ND.dtype)
        return Scores(probs_NS, probs_NS, None)
