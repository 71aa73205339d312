"""The decoder's cache (a key-value cache, and the states of recurrent mixers), so that a new token costs one step.

Each mixer stores tensors under its layer. Attention stores the keys and values of all earlier tokens, with their
positions and documents, which decide which queries may see them. A recurrent mixer stores its state alone. Feed-forward
layers and routers look at single tokens; experts with a limited capacity store how many tokens they have had.

B blocks, S tokens so far.
"""

from typing import ClassVar

import torch
from torch import Tensor


class Cache:
    """Cached tensors of each layer; empty at first, and extended by each call of `Transformer.read`."""

    CONTEXT: ClassVar[int] = -2
    """In place of a layer: hashes of the contexts so far, (B, S)."""

    @staticmethod
    def feed_forward_key(layer: int) -> int:
        """Return what stands in place of the layer for the state of its feed-forward part; its mixer has the number."""
        return -3 - layer

    def __init__(self) -> None:
        self.length = 0
        """Number of tokens read so far, S."""
        self._kept: dict[int, tuple[Tensor, ...]] = {}
        self._states: set[int] = set()

    def append(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Append `new`, each (B, T, ...), to the layer's tensors along the tokens; return all, each (B, S, ...)."""
        old = self._kept.get(layer)
        kept = new if old is None else tuple(torch.cat(pair, dim=1) for pair in zip(old, new, strict=True))
        self._kept[layer] = kept
        return kept

    def state(self, layer: int) -> tuple[Tensor, ...] | None:
        """Return the layer's cached tensors, each (B, ...); None before its first call."""
        return self._kept.get(layer)

    def set_state(self, layer: int, *state: Tensor) -> None:
        """Replace the layer's cached tensors by its new state, each (B, ...)."""
        self._kept[layer] = state
        self._states.add(layer)

    def copy(self) -> "Cache":
        """Return a copy to go back to; it shares the tensors, since none is ever changed in place."""
        copied = Cache()
        copied.length, copied._kept, copied._states = self.length, dict(self._kept), set(self._states)
        return copied

    @property
    def can_truncate(self) -> bool:
        """Whether the cache can be cut: it holds every token by itself, no recurrent state and no skipped token."""
        if self._states:
            return False
        return all(tensor.shape[1] == self.length for kept in self._kept.values() for tensor in kept)

    def truncate(self, length: int) -> None:
        """Drop the tokens after the first `length`.

        Raises:
            ValueError: the cache has fewer tokens, or an earlier state cannot be recovered (`can_truncate`).
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        if length == self.length:
            return
        if not self.can_truncate:
            raise ValueError("a cache that holds a recurrent state, or skipped tokens, cannot be cut; keep a copy")
        self._kept = {layer: tuple(tensor[:, :length] for tensor in kept) for layer, kept in self._kept.items()}
        self.length = length

    def select(self, row_B: Tensor) -> None:
        """Keep these rows of the batch, in this order, as a beam search needs."""
        self._kept = {layer: tuple(tensor[row_B] for tensor in kept) for layer, kept in self._kept.items()}
