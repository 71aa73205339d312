"""Keep some slots of a router, and send all tokens to these: what the interventions on subsets of experts share.

N tokens, S slots.
"""

import torch
from torch import Tensor

from speciate.evaluation.overrides import Call, Change, Intervention
from speciate.evaluation.rerouting import route, scores_of, slots_choose, without
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.selection.selection import Selector


def numbers_kept(selector: Selector) -> list[int]:
    """Return the numbers of slots to keep: half and a quarter, as far as a token's choices fit in and one is lost."""
    assert isinstance(selector, TopK)
    numbers = {max(selector.top_k, selector.num_slots // part) for part in (2, 4)}
    return sorted(number for number in numbers if number < selector.num_slots)


def keep_best(call: Call, worth: Tensor) -> Routing:
    """Route to the `call.slot` slots with the largest worth alone; each token takes its best among these.

    Args:
        call: the call of the router.
        worth: of each slot, (S) or, where it differs between tokens, (N, S).
    """
    scores = scores_of(call)
    kept = torch.zeros_like(worth, dtype=torch.bool)
    kept.scatter_(-1, worth.topk(call.slot, dim=-1).indices, True)
    return route(call, without(call, scores, (~kept).expand_as(scores.probs_NS)))


def applies(selector: Selector) -> bool:
    """Tell whether tokens choose, and how many slots there are to lose."""
    return isinstance(selector, TopK) and not slots_choose(selector) and bool(numbers_kept(selector))


def keeping(change: Change) -> Intervention:
    """Return the intervention on routers that keeps slots as `change` does."""
    return Intervention(changes={TopK: change}, variants="kept", applies=applies)
