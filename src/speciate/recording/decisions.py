"""Turn what a router was seen to do into what a RecordBuilder takes: choices in order, weights, margins, probabilities.

N decisions, S slots, K chosen slots.
"""

from typing import Any

import torch
from torch import Tensor

from speciate.recording.router_call import RouterCall, SharesCall, Site
from speciate.recording.scores import are_probabilities, margins, order_by, probabilities
from speciate.recording.sites import UnreadableModel
from speciate.recording.token_stream import TokenStream
from speciate.selection.record_builder import SelectorShape


def kept_decisions(token_N: Tensor | None, stream: TokenStream) -> Tensor:
    """Return which decisions are about real tokens, (N,).

    Args:
        token_N: index of each decision's token, negative at padding; None: there is one decision a token.
        stream: the tokens.
    """
    if token_N is None:
        return stream.real_N
    return (token_N >= 0) & stream.real_N[token_N.clamp_min(0)]


def decisions_of(site: Site, call: RouterCall, kept_N: Tensor) -> tuple[SelectorShape, dict[str, Any]]:
    """Return what a call decided, as the arguments of `RecordBuilder.add`.

    The slots of a decision are in the order of their logits, the best first; the model may have them in any.

    Raises:
        UnreadableModel: nothing tells the number of slots.
    """
    if call.logits_NS is None:
        raise UnreadableModel(f"{site.path}: the experts were called without their router, so its logits are unknown")
    slot_NK, logits_NS = call.slot_NK[kept_N], call.logits_NS[kept_N].float()
    weight_NK = None if call.weight_NK is None else call.weight_NK[kept_N].float()
    scores = site.rule.scores
    if are_probabilities(logits_NS):
        logits_NS, scores = logits_NS.clamp_min(torch.finfo(torch.float32).tiny).log(), "softmax"
    decisions: dict[str, Any] = {}
    if scores is not None:
        decisions["probs_NS"] = probabilities(logits_NS, scores).cpu().numpy()
    if site.by_scores:
        decisions["margin_N"] = margins(logits_NS, slot_NK).cpu().numpy()
    if slot_NK.shape[1] > 1:
        order_NK = order_by(logits_NS.gather(1, slot_NK.clamp_min(0)), slot_NK)
        slot_NK = slot_NK.gather(1, order_NK)
        weight_NK = None if weight_NK is None else weight_NK.gather(1, order_NK)
    if weight_NK is not None:
        decisions["weight_NK"] = weight_NK.masked_fill(slot_NK < 0, torch.nan).cpu().numpy()
    shape = SelectorShape(site.path, site.layer, logits_NS.shape[1], slot_NK.shape[1])
    return shape, {"choice_NK": slot_NK.cpu().numpy(), **decisions}


def shares_of(site: Site, call: SharesCall, kept_N: Tensor) -> tuple[SelectorShape, dict[str, Any]]:
    """Return what a selector with a null of its own decided, as the arguments of `RecordBuilder.add_shares`."""
    null_NS = call.null_NS.expand_as(call.chosen_NS)
    num_slots = call.chosen_NS.shape[1]
    shares = {"chosen_NS": call.chosen_NS[kept_N], "null_NS": null_NS[kept_N]}
    if call.probs_NS is not None:
        shares["probs_NS"] = call.probs_NS[kept_N]
    return SelectorShape(site.path, site.layer, num_slots, num_slots), {
        name: value.double().cpu().numpy() for name, value in shares.items()
    }
