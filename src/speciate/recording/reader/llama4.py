"""Llama 4's routers: every expert is given every token, times its score, which is 0 where it was not chosen."""

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.families import family_of
from speciate.recording.router_call import Emit, RouterCall, Rule, Site


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the site of one of Llama 4's routers; None for any other module."""
    if type(module).__name__ != "Llama4Router":
        return None
    num_chosen = int(vars(module)["top_k"])

    def attach(emit: Emit) -> list[RemovableHandle]:
        def on_router(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            score_NS, logits_NS = output
            weight_NK, slot_NK = score_NS.topk(num_chosen, dim=-1)
            emit(RouterCall(slot_NK, weight_NK, logits_NS, args[0]))

        return [module.register_forward_hook(on_router)]

    return Site(path, family_of(module), Rule(scores), attach, routers=(module,))
