"""One slot masked, with what it had going to the next best.

    router      the logit of one expert is -inf: its tokens go to their next best. Where experts choose their tokens,
                the others are full, and the tokens of the masked one go without
    depth       masked `run`: no token runs; masked `skip`: all tokens run
    indexer     the keys in one range of distance are not to be chosen; the next best are taken

The cost by domain is the domain's need of the slot.
"""

import torch
from torch import Tensor

from speciate.evaluation.overrides import Call, Intervention
from speciate.evaluation.rekeying import attend_by
from speciate.evaluation.rerouting import route, scores_of, without
from speciate.evaluation.rerunning import run_tokens
from speciate.model.depth.skipper import TokenChoice, TokenRouter
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.model.sparse_attention.attention import AttentionOutput, SparseAttention
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.selection.selection import Selector


def masked_expert(call: Call) -> Routing:
    """Route as if the logit of the slot were -inf."""
    scores = scores_of(call)
    slot_S = torch.arange(scores.probs_NS.shape[1], device=scores.probs_NS.device)
    return route(call, without(call, scores, (slot_S == call.slot).expand_as(scores.probs_NS)))


def masked_run(call: Call) -> TokenChoice:
    """Let all tokens run where `skip` (0) is masked, and none where `run` is."""
    return run_tokens(call, torch.full_like(call.output.run_BT, call.slot == 0))


def masked_range(call: Call) -> AttentionOutput:
    """Attend as if no key were in the slot's range of distance."""

    def scores(part: AttentionInputs) -> Tensor:
        score_BCS: Tensor = call.selector.indexer.scores(part)
        slot_BCS = call.selector.slots(part.position_BT[:, :, None], part.position_BS[:, None, :])
        return score_BCS.masked_fill(slot_BCS == call.slot, -torch.inf)

    return attend_by(call, scores)


def applies(selector: Selector) -> bool:
    """Tell whether a slot is left when one is masked."""
    return not isinstance(selector, TopK) or selector.num_slots > selector.top_k


INTERVENTION = Intervention(
    changes={TopK: masked_expert, TokenRouter: masked_run, SparseAttention: masked_range},
    variants="slots",
    applies=applies,
)
