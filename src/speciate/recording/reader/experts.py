"""Routers beside an experts module that is called with the chosen experts and their weights, as most families have it.

    logits, weights, indices = gate(hidden);   out = experts(hidden, indices, weights)

The choice is read where the experts are called, so it is what they serve, whatever happened to it on the way.
"""

import inspect
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.families import family_of
from speciate.recording.router_call import Emit, RouterCall, Rule, Site

ROUTER_NAMES = ("gate", "router")
INDEX_NAMES = ("top_k_index", "router_indices")
WEIGHT_NAMES = ("top_k_weights", "routing_weights")


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the router of a module that holds one beside its experts; None for any other module."""
    children = dict(module.named_children())
    experts, name = children.get("experts"), next((name for name in ROUTER_NAMES if name in children), None)
    if experts is None or name is None:
        return None
    names = list(inspect.signature(type(experts).forward).parameters)[1:]
    if len(names) < 3 or names[1] not in INDEX_NAMES or names[2] not in WEIGHT_NAMES:
        return None
    router = children[name]

    def attach(emit: Emit) -> list[RemovableHandle]:
        seen: list[tuple[Tensor, Tensor]] = []

        def on_router(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            logits = output[0] if isinstance(output, tuple) else output
            seen[:] = [(args[0], logits)]

        def on_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            slot_NK, weight_NK = given[names[1]], given[names[2]]
            hidden, logits = seen.pop() if seen else (None, None)
            emit(
                RouterCall(
                    slot_NK.flatten(0, -2),
                    weight_NK.flatten(0, -2),
                    None if logits is None else logits.flatten(0, -2),
                    None if hidden is None else hidden.flatten(0, -2),
                )
            )

        return [
            router.register_forward_hook(on_router),
            experts.register_forward_pre_hook(on_experts, with_kwargs=True),
        ]

    return Site(f"{path}.{name}" if path else name, family_of(router), rule_of(router, scores), attach)


def rule_of(router: nn.Module, scores: str | None) -> Rule:
    """Return how a router chooses; its groups are attributes of the module that most families name alike."""
    settings = vars(router)
    groups, kept = settings.get("num_group") or 1, settings.get("topk_group") or 1
    if kept >= groups or settings.get("topk_method", "group_limited_greedy") == "greedy":
        return Rule(scores)
    best = 1 if settings.get("topk_method") else 2
    return Rule(scores, groups, kept, best)
