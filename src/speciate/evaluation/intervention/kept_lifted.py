"""The experts that a token's domain prefers are kept for it: those with the largest lift.

If experts were specialised by domain, this would cost less than keeping as many random ones.
"""

from speciate.evaluation.kept_slots import keep_best, keeping
from speciate.evaluation.overrides import Call
from speciate.evaluation.rerouting import tokens_of
from speciate.model.moe.top_k_router import Routing


def keep_lifted(call: Call) -> Routing:
    """Keep the slots with the largest lift in each token's domain; the most loaded ones where it is unknown."""
    domain_BT = tokens_of(call).domain_BT
    if domain_BT is None:
        return keep_best(call, call.load_S)
    lift_DS = call.load_DS / call.load_S.clamp_min(1e-12)
    return keep_best(call, lift_DS[domain_BT.flatten()])


INTERVENTION = keeping(keep_lifted)
