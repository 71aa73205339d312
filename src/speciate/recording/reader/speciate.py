"""Selectors of this package's own models: they report a Selection."""

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from speciate.model.moe.choice import expert
from speciate.model.moe.top_k_router import Routing, TopK
from speciate.recording.router_call import Emit, RouterCall, Rule, SharesCall, Site
from speciate.selection.selection import Selector, is_recomputing


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the site of a selector; None for any other module."""
    if not isinstance(module, Selector):
        return None

    tokens_choose = isinstance(module, TopK) and not isinstance(module.choice, expert.Choose)

    def attach(emit: Emit) -> list[RemovableHandle]:
        def on_selector(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not is_recomputing():
                emit(router_call(args, output) if tokens_choose else shares_call(output))

        return [module.register_forward_hook(on_selector)]

    return Site(path, "speciate", Rule("softmax"), attach, routers=(module,) if tokens_choose else ())


def router_call(args: tuple[Any, ...], routing: Routing) -> RouterCall:
    """Return what a router of experts chose; its probabilities stand for its logits."""
    selection = routing.selection
    return RouterCall(routing.slot_NK, routing.weight_NK, selection.probs_NS, args[0], token_N=selection.token_N)


def shares_call(output: Any) -> SharesCall:
    """Return what another selector chose, or a router whose experts choose their tokens: some choose more slots."""
    selection = output.selection
    return SharesCall(selection.chosen_NS, selection.null_NS, selection.probs_NS, selection.token_N)
