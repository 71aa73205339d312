"""Everything to the top expert: all tokens go to the k experts with the largest load, with the weights of their best.

It is what a collapsed router does. Where experts choose their tokens it does not exist: each takes as many as fit.
"""

from speciate.evaluation.overrides import Call, Intervention
from speciate.evaluation.rerouting import route_to, slots_choose
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.selection.selection import Selector


def top_slots(call: Call) -> Routing:
    """Route by the slots' load."""
    probs_NS = call.output.selection.probs_NS
    return route_to(call, call.load_S.to(probs_NS.dtype).expand_as(probs_NS))


def applies(selector: Selector) -> bool:
    """Tell whether tokens choose."""
    return isinstance(selector, TopK) and not slots_choose(selector)


INTERVENTION = Intervention(changes={TopK: top_slots}, applies=applies)
