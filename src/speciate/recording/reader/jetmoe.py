"""JetMoE's routers, of experts and of attention experts: they sort the (token, expert) pairs by expert.

The experts split what they are given by the sizes that the router returns, so sizes and order are what they serve.

N tokens, K slots of a token.
"""

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.families import family_of
from speciate.recording.router_call import Emit, RouterCall, Rule, Site


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the site of one of JetMoE's routers; None for any other module."""
    if type(module).__name__ != "JetMoeTopKGating":
        return None

    def attach(emit: Emit) -> list[RemovableHandle]:
        def on_router(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            pair_of_sorted, _, sorted_weights, sizes, logits_NS = output
            count = torch.tensor(sizes, device=pair_of_sorted.device)
            served = torch.repeat_interleave(torch.arange(len(sizes), device=count.device), count)
            slot, weight = torch.empty_like(served), torch.empty_like(sorted_weights)
            slot[pair_of_sorted], weight[pair_of_sorted] = served, sorted_weights
            shape = (len(logits_NS), -1)
            emit(RouterCall(slot.view(shape), weight.view(shape), logits_NS, args[0]))

        return [module.register_forward_hook(on_router)]

    return Site(path, family_of(module), Rule(scores), attach, routers=(module,))
