"""Indexers of sparse attention: the keys that each query may attend to.

Families differ in how they name the keys: by index, by blocks of them, or by a mask. What they share is here; how each
names its keys is one function.

B rows of T queries, S keys, k chosen keys, h heads.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from speciate.recording.families import family_of
from speciate.recording.gate_and_experts import parameter_names
from speciate.recording.router_call import Emit, KeyCall, Rule, Site

Given = dict[str, Any]
Keys = Callable[[nn.Module, Given, Tensor], KeyCall]


def by_index(indexer: nn.Module, given: Given, output: Tensor) -> KeyCall:
    """Return the keys that (B, T, k) indices name, -1 for none: DeepSeek-V3.2 and those who took its indexer over."""
    return KeyCall(output)


def by_mask(indexer: nn.Module, given: Given, output: Tensor) -> KeyCall:
    """Return the keys that a (B, 1, T, S) mask leaves: Qwen4's indexer."""
    mask_BTS = output[:, 0]
    index_S = torch.arange(mask_BTS.shape[-1], device=mask_BTS.device)
    return KeyCall(index_S.expand_as(mask_BTS).masked_fill(~mask_BTS, -1))


def by_blocks(indexer: nn.Module, given: Given, output: Tensor) -> KeyCall:
    """Return the keys in (B, h, T, k) blocks, of all heads together: MiniMax-M3's indexer."""
    block_BTk = output.transpose(1, 2).flatten(2)
    return KeyCall(_unfolded(block_BTk, int(vars(indexer)["block_size"])))


def by_compressed(indexer: nn.Module, given: Given, output: Tensor) -> KeyCall:
    """Return the keys that (B, T, k) compressed entries were made of: DeepSeek-V4's indexer.

    A query sees only entries that are complete before it.
    """
    rate = int(vars(indexer)["compress_rate"])
    return KeyCall(_unfolded(output, rate), seen_BT=(given["position_ids"] + 1) // rate * rate)


NAMED: dict[str, Keys] = {
    "DeepseekV4Indexer": by_compressed,
    "MiniMaxM3VLIndexer": by_blocks,
    "Qwen4ExpTextQSAIndexer": by_mask,
}
"""Class of an indexer -> how it names keys; all others by index."""


def read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    """Return the site of an indexer; None for any other module."""
    name = type(module).__name__
    if not name.endswith("Indexer"):
        return None
    keys = NAMED.get(name, by_index)

    def attach(emit: Emit) -> list[RemovableHandle]:
        names = parameter_names(module)

        def on_indexer(_: nn.Module, args: tuple[Any, ...], kwargs: Given, output: Tensor) -> None:
            emit(keys(module, {**dict(zip(names, args, strict=False)), **kwargs}, output))

        return [module.register_forward_hook(on_indexer, with_kwargs=True)]

    return Site(path, family_of(module), Rule("softmax"), attach)


def _unfolded(block_BTk: Tensor, size: int) -> Tensor:
    """Return the indices of the keys in blocks of `size` keys; -1 stays -1."""
    key = block_BTk[..., None].long() * size + torch.arange(size, device=block_BTk.device)
    return key.masked_fill(block_BTk[..., None] < 0, -1).flatten(-2)
