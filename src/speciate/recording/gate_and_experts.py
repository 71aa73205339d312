"""Hook a router and the experts module beside it, which is called with the chosen experts and their weights.

    logits, weights, indices = gate(hidden);   out = experts(hidden, indices, weights)

The choice is read where the experts are called, so it is what they serve, whatever happened to it on the way.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.router_call import Emit, RouterCall, Rule

ROUTER_NAMES = ("gate", "router")
INDEX_NAMES = ("top_k_index", "router_indices")
WEIGHT_NAMES = ("top_k_weights", "routing_weights")
Alter = Callable[[RouterCall], RouterCall]


def router_beside_experts(module: nn.Module) -> tuple[str, nn.Module, nn.Module] | None:
    """Return the name of a module's router, the router and its experts; None where it has no such pair."""
    children = dict(module.named_children())
    experts, name = children.get("experts"), next((name for name in ROUTER_NAMES if name in children), None)
    if experts is None or name is None:
        return None
    names = parameter_names(experts)
    if len(names) < 3 or names[1] not in INDEX_NAMES or names[2] not in WEIGHT_NAMES:
        return None
    return name, children[name], experts


def parameter_names(module: nn.Module) -> list[str]:
    """Return the names of the parameters of a module's forward."""
    return list(inspect.signature(type(module).forward).parameters)[1:]


def hook_pair(router: nn.Module, experts: nn.Module, emit: Emit, alter: Alter | None = None) -> list[RemovableHandle]:
    """Emit each call of the experts, with what the router saw and made of it just before.

    Args:
        router: its first argument is what it sees, its first output the logits.
        experts: called with hidden states, indices and weights.
        emit: takes the calls.
        alter: changes a call before it is emitted.
    """
    names = parameter_names(experts)
    seen: list[tuple[Tensor, Tensor]] = []

    def on_router(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen[:] = [(args[0], output[0] if isinstance(output, tuple) else output)]

    def on_experts(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        hidden, logits = seen.pop() if seen else (None, None)
        call = RouterCall(
            given[names[1]].flatten(0, -2),
            given[names[2]].flatten(0, -2),
            None if logits is None else logits.flatten(0, -2),
            None if hidden is None else hidden.flatten(0, -2),
        )
        emit(call if alter is None else alter(call))

    return [router.register_forward_hook(on_router), experts.register_forward_pre_hook(on_experts, with_kwargs=True)]


def rule_of(router: nn.Module, scores: str | None) -> Rule:
    """Return how a router chooses; its groups are attributes of the module that families name alike."""
    settings = vars(router)
    groups, kept = settings.get("num_group") or 1, settings.get("topk_group") or 1
    method = settings.get("topk_method")
    if kept >= groups or method == "greedy":
        return Rule(scores)
    # DeepSeek-V2 takes a group for its best expert, all later ones for the sum of its two best
    return Rule(scores, groups, kept, 1 if method else 2)
