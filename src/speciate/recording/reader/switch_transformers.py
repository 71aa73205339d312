"""Switch Transformers' routers: one expert a token, and none where the expert is full.

The experts are called with a row of zeros and a one, or of zeros alone.
"""

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.families import family_of
from speciate.recording.router_call import Emit, RouterCall, Rule, Site


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the router of one of Switch Transformers' sparse layers; None for any other module."""
    if type(module).__name__ != "SwitchTransformersSparseMLP":
        return None
    router, experts = module.get_submodule("router"), module.get_submodule("experts")

    def attach(emit: Emit) -> list[RemovableHandle]:
        seen: list[tuple[Tensor, Tensor]] = []

        def on_router(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            seen[:] = [(args[0].flatten(0, 1), output[2].flatten(0, 1))]

        def on_experts(_: nn.Module, args: tuple[Any, ...]) -> None:
            _, served_N1S, weight_N1 = args
            hidden_ND, logits_NS = seen.pop()
            most_N1, slot_N1 = served_N1S.max(-1)
            emit(RouterCall(slot_N1.masked_fill(most_N1 == 0, -1), weight_N1, logits_NS, hidden_ND))

        return [router.register_forward_hook(on_router), experts.register_forward_pre_hook(on_experts)]

    return Site(f"{path}.router", family_of(router), Rule(scores), attach, routers=(router,))
