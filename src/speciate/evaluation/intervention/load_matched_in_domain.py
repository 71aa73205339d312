"""Load-matched random routing within each domain: every domain keeps its own load of every expert.

Tokens take the scores of other tokens of their own domain. Beside `load_matched`, it shows how much of a router's worth
is the domain's: the less this costs, the more a token's domain alone would do.
"""

from speciate.evaluation.intervention.load_matched import shuffled, shuffled_tokens
from speciate.evaluation.overrides import Call, Intervention
from speciate.evaluation.rerouting import tokens_of
from speciate.model.moe.top_k_router import Routing, TopK


def shuffled_in_domain(call: Call) -> Routing:
    """Shuffle the scores among the tokens of each domain; among all tokens where domains are unknown."""
    domain_BT = tokens_of(call).domain_BT
    return shuffled_tokens(call) if domain_BT is None else shuffled(call, domain_BT.flatten())


INTERVENTION = Intervention(changes={TopK: shuffled_in_domain})
