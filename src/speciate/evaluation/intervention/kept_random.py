"""Random experts alone are kept, the same ones for all tokens of a batch: the control of the other subsets."""

from speciate.evaluation.kept_slots import keep_best, keeping
from speciate.evaluation.overrides import Call
from speciate.model.moe.top_k_router import Routing


def keep_random(call: Call) -> Routing:
    """Return a routing in which only slots drawn at random are left."""
    return keep_best(call, call.uniforms(len(call.load_S)))


INTERVENTION = keeping(keep_random)
