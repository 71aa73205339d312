"""Uniform random routing: each token goes to random experts, all equally likely, with the weights of its own best.

Where experts choose their tokens, each takes random ones. It is no load-matched control: it also sends tokens to
experts that the router hardly uses. `load_matched` is.
"""

from speciate.evaluation.overrides import Call, Intervention
from speciate.evaluation.rerouting import route_to
from speciate.model.moe.top_k_router import Routing, TopK


def random_slots(call: Call) -> Routing:
    """Route by random scores."""
    probs_NS = call.output.selection.probs_NS
    return route_to(call, call.uniforms(*probs_NS.shape).to(probs_NS.dtype))


INTERVENTION = Intervention(changes={TopK: random_slots})
