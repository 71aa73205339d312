"""Routers beside an experts module that is called with the chosen experts and their weights: most families."""

from torch import nn

from speciate.recording.families import family_of
from speciate.recording.gate_and_experts import hook_pair, router_beside_experts, rule_of
from speciate.recording.router_call import Site


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the router of a module that holds one beside its experts; None for any other module."""
    pair = router_beside_experts(module)
    if pair is None:
        return None
    name, router, experts = pair
    by_table = "tid2eid" in dict(router.named_buffers())  # DeepSeek-V4's first layers look token ids up
    return Site(
        f"{path}.{name}" if path else name,
        family_of(router),
        rule_of(router, scores),
        lambda emit: hook_pair(router, experts, emit),
        routers=(router,),
        by_scores=not by_table,
    )
