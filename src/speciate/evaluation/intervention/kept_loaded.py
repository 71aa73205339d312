"""The most loaded experts alone are kept; tokens of the others go to their best among these."""

from speciate.evaluation.kept_slots import keep_best, keeping
from speciate.evaluation.overrides import Call
from speciate.model.moe.top_k_router import Routing


def keep_loaded(call: Call) -> Routing:
    """Keep the slots with the largest load."""
    return keep_best(call, call.load_S)


INTERVENTION = keeping(keep_loaded)
