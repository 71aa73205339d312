"""Route tokens once more, by other scores: what the interventions on top-k routers share.

A router that names one expert (hash, oracle) has no second best. Where its expert is taken away, chance decides.

N tokens, S slots, K slots of a token.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from speciate.evaluation.overrides import Call
from speciate.model.moe.choice import expert
from speciate.model.moe.top_k_router import Routing, Scores, TopK
from speciate.model.token_batch import TokenBatch


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What a router's choice is made from."""

    order_NS: Tensor
    """Scores by which slots are chosen, balancing included."""
    gate_NS: Tensor
    """Gates, from which weights are made."""


def tokens_of(call: Call) -> TokenBatch:
    """Return the tokens that the router was called with."""
    tokens = call.args[1]
    assert isinstance(tokens, TokenBatch)
    return tokens


def slots_choose(selector: TopK) -> bool:
    """Tell whether the slots choose their tokens (expert choice), so that no token can be sent elsewhere."""
    return isinstance(selector.choice, expert.Choose)


def scores_of(call: Call) -> Scores:
    """Return the router's scores of the tokens that it was called with."""
    scores: Scores = call.selector.scorer(*call.args)
    return scores


def ranking(selector: TopK, scores: Scores) -> Ranking:
    """Return what the choice is made from, as `TopK.forward` does."""
    gate_NS = scores.noisy_NS if scores.gate_NS is None else scores.gate_NS
    order_NS = gate_NS if scores.order_NS is None else scores.order_NS
    return Ranking(selector.balance.adjust_scores(order_NS), gate_NS)


def route(call: Call, ranked: Ranking) -> Routing:
    """Return the routing that follows from `ranked`, and the Selection that reports it.

    A slot whose score of a token is -inf does not serve it.
    """
    tokens, routing = tokens_of(call), call.output
    chosen = call.selector.choice(ranked.order_NS, ranked.gate_NS, tokens)
    chosen_NS, kept_NK, served_N = chosen.chosen_NS, chosen.kept_NK, chosen.served_N
    if slots_choose(call.selector):
        kept_NK = kept_NK & (ranked.order_NS > -torch.inf)
        count_N1 = kept_NK.sum(-1, keepdim=True)
        chosen_NS, served_N = kept_NK.to(chosen_NS.dtype) / count_N1.clamp(min=1), count_N1.squeeze(-1) > 0
    token_N = tokens.index_BT.flatten()
    selection = replace(
        routing.selection,
        chosen_NS=chosen_NS,
        token_N=token_N if served_N is None else token_N.where(served_N, -1),
    )
    return Routing(selection, chosen.slot_NK, chosen.weight_NK, kept_NK)


def route_to(call: Call, order_NS: Tensor) -> Routing:
    """Return the routing to the slots that score highest; the weights stay those of the token's own best slots.

    Where slots choose, a token's weight stays the router's gate of the slot.
    """
    routing = route(call, Ranking(order_NS, ranking(call.selector, scores_of(call)).gate_NS))
    if slots_choose(call.selector):
        return routing
    return replace(routing, weight_NK=call.output.weight_NK)


def without(call: Call, scores: Scores, gone_NS: Tensor) -> Ranking:
    """Return the ranking in which the slots `gone_NS` (boolean) have a logit of -inf for these tokens.

    Args:
        call: the call of the router.
        scores: its scores.
        gone_NS: slots that are gone for a token; a row leaves it at least as many as it takes.
    """
    before = ranking(call.selector, scores)
    kept_NS = before.gate_NS.masked_fill(gone_NS, 0.0)
    total_N1 = kept_NS.sum(-1, keepdim=True)
    if scores.gate_NS is not None:
        gate_NS = kept_NS
    elif scores.logits_NS is not None:
        gate_NS = scores.logits_NS.masked_fill(gone_NS, -torch.inf).softmax(-1)
    else:
        gate_NS = kept_NS / total_N1.clamp_min(torch.finfo(kept_NS.dtype).tiny)
    # the order is that of the gates as they are after the loss of the slots, so that balancing adds to the same scale
    order_NS = gate_NS if scores.order_NS is None else scores.order_NS
    order_NS = call.selector.balance.adjust_scores(order_NS)
    if scores.logits_NS is None:
        nothing_N1 = total_N1 == 0
        by_chance_NS = call.uniforms(*order_NS.shape).to(order_NS.dtype)
        order_NS = torch.where(nothing_N1, by_chance_NS, order_NS)
        gate_NS = torch.where(nothing_N1, torch.ones_like(gate_NS), gate_NS)
    return Ranking(order_NS.masked_fill(gone_NS, -torch.inf), gate_NS.masked_fill(gone_NS, 0.0))
