"""Load-matched control of `masked_slot`: as many tokens as the expert has lose a choice to their next best, at random.

In each block the loss of the expert is given to random tokens: one that would have lost its first choice makes another
token lose its own first choice. What `masked_slot` costs beyond this is what the expert's own tokens need of it.
"""

import torch

from speciate.evaluation.overrides import Call, Intervention, permutation_within
from speciate.evaluation.rerouting import route, scores_of, slots_choose, tokens_of, without
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.selection.selection import Selector


def masked_at_random(call: Call) -> Routing:
    """Mask, for random tokens of each block, the choice of the rank that the slot had for others."""
    tokens, slot_NK, scores = tokens_of(call), call.output.slot_NK, scores_of(call)
    block_BT = torch.arange(len(tokens.id_BT), device=slot_NK.device).unsqueeze(1).expand_as(tokens.id_BT)
    group_N = block_BT.where(tokens.real_BT, -1).flatten()
    from_N = permutation_within(group_N, call.uniforms(len(group_N)))
    lost_NK = (slot_NK == call.slot)[from_N]
    gone_NS = torch.zeros_like(scores.probs_NS, dtype=torch.bool).scatter_(1, slot_NK, lost_NK)
    return route(call, without(call, scores, gone_NS))


def applies(selector: Selector) -> bool:
    """Tell whether tokens choose, and have a next best."""
    return isinstance(selector, TopK) and not slots_choose(selector) and selector.num_slots > selector.top_k


INTERVENTION = Intervention(changes={TopK: masked_at_random}, variants="slots", applies=applies)
