"""Control: the text's domain decides, as in a router that knows the domains and divides tokens by nothing else.

    slots of domain d = {s : s mod domains = d};   among them the token's id decides, assigned as in `hash`

Every domain has its own slots, so the slot reveals the domain: the most specialised routing there is. Next to it, a
learned router shows how far it came, and whether dividing by domain helps the loss at all.

All tokens of a block are of one domain (data/blocks.py), which training and evaluation provide
(`TokenBatch.domain_BT`). Text whose domain is unknown, such as a prompt, cannot be routed.

N tokens, S slots, V vocabulary, G domains.
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
    """Number of domains, and seed of the assignment."""

    domains: int = Field(ge=1)
    """Number of domains of the study."""
    seed: int = Field(0, ge=0)
    """Seed of the assignment of ids to a domain's slots, combined with the run's seed."""

    scores_all_slots: ClassVar[bool] = False
    reads_token_ids: ClassVar[bool] = True

    def check_slots(self, num_slots: int) -> None:
        """Refuse fewer slots than domains."""
        if num_slots < self.domains:
            raise ValueError(f"router: oracle gives each of {self.domains} domains a slot, and there are {num_slots}")

    def check_domains(self, domains: tuple[str, ...]) -> None:
        """Refuse a study with another number of domains."""
        if len(domains) != self.domains:
            raise ValueError(f"router: oracle: domains is {self.domains}, but the study has {len(domains)} domains")


class Router(HasTokenTable, Scorer):
    """Looks up the slot of each domain and token id, with probability one."""

    slot_GV: Tensor

    def __init__(self, options: Options, context: BuildContext, num_slots: int) -> None:
        super().__init__()
        self.num_slots, self.domains = num_slots, options.domains
        shuffled_V = torch.randperm(
            context.vocabulary, generator=generator("oracle", options.seed, context.seed, context.layer)
        )
        slots_of_domains = [torch.tensor(self.slots_of(domain)) for domain in range(options.domains)]
        self.register_buffer("slot_GV", torch.stack([slots[shuffled_V % len(slots)] for slots in slots_of_domains]))

    def slots_of(self, domain: int) -> range:
        """Return the slots of a domain."""
        return range(domain, self.num_slots, self.domains)

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """Return one-hot probabilities.

        Raises:
            ValueError: the tokens' domain is unknown, or is none of the study's.
        """
        if tokens.domain_BT is None:
            raise ValueError("router: oracle needs the domain of every text, and the domain of this one is unknown")
        if int(tokens.domain_BT.max()) >= self.domains:
            raise ValueError(f"router: oracle: domains is {self.domains}, but the tokens come from more domains")
        slot_N = self.slot_GV[tokens.domain_BT, tokens.id_BT].flatten()
        probs_NS = F.one_hot(slot_N, self.num_slots).to(x_ND.dtype)
        return Scores(probs_NS, probs_NS, None)

    def resize_vocabulary(self, vocabulary: int) -> None:
        """Give each added id, in every domain, to that slot of the domain which has the fewest ids."""
        rows = [resize_slots(row_V, vocabulary, self.slots_of(domain)) for domain, row_V in enumerate(self.slot_GV)]
        self.slot_GV = torch.stack(rows)
