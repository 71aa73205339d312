"""Zaya's routers: one slot more than there are experts, at which no expert serves the token.

A skipped token is sent to expert 0 with weight 0; here it is in the last slot, which the router chose.
"""

from dataclasses import replace

from torch import nn

from speciate.recording.families import family_of
from speciate.recording.gate_and_experts import hook_pair, router_beside_experts
from speciate.recording.router_call import RouterCall, Rule, Site


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the router of Zaya's mixture of experts; None for any other module."""
    pair = router_beside_experts(module)
    if pair is None or type(module).__name__ != "ZayaSparseMoeBlock":
        return None
    name, router, experts = pair

    def skipped(call: RouterCall) -> RouterCall:
        assert call.weight_NK is not None and call.logits_NS is not None
        return replace(call, slot_NK=call.slot_NK.masked_fill(call.weight_NK == 0, call.logits_NS.shape[1] - 1))

    return Site(
        f"{path}.{name}",
        family_of(router),
        Rule(scores),
        lambda emit: hook_pair(router, experts, emit, skipped),
        routers=(router,),
    )
