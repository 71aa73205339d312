"""What a decoder keeps of the tokens it has read, so that one more token costs one token's work.

Each mixer keeps its own tensors under its layer: attention the keys and values of every token before, with their
positions and documents, which say who may see them; a recurrent mixer its state alone. Feed-forward layers and
routers look at a token by itself, and keep nothing.

B blocks, S tokens so far.
"""

import torch
from torch import Tensor


class Cache:
    """Empty at first; `Transformer.hidden` fills it with each call."""

    def __init__(self) -> None:
        self.length = 0
        """Tokens read so far, S."""
        self._kept: dict[int, tuple[Tensor, ...]] = {}
        self._states: set[int] = set()

    def append(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Everything that `layer` has kept, these included: each (B, S, ...), joined along the tokens."""
        old = self._kept.get(layer)
        kept = new if old is None else tuple(torch.cat(pair, dim=1) for pair in zip(old, new, strict=True))
        self._kept[layer] = kept
        return kept

    def state(self, layer: int) -> tuple[Tensor, ...] | None:
        """What `layer` has kept, each (B, ...); None before its first call."""
        return self._kept.get(layer)

    def keep(self, layer: int, *state: Tensor) -> None:
        """Replaces what `layer` has kept by its new state, each (B, ...)."""
        self._kept[layer] = state
        self._states.add(layer)

    def copy(self) -> "Cache":
        """What it holds now, to go back to; the tensors are shared, since none is ever altered in place."""
        copied = Cache()
        copied.length, copied._kept, copied._states = self.length, dict(self._kept), set(self._states)
        return copied

    @property
    def can_truncate(self) -> bool:
        """Whether all that it keeps is of single tokens, of every one: no recurrent state, and no token skipped."""
        if self._states:
            return False
        return all(tensor.shape[1] == self.length for kept in self._kept.values() for tensor in kept)

    def truncate(self, length: int) -> None:
        """Forgets the tokens after the first `length`.

        Raises:
            ValueError: there are fewer, or a layer's state does not say what it was then (`can_truncate`).
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        if length == self.length:
            return
        if not self.can_truncate:
            raise ValueError("a cache that holds a recurrent state, or skipped tokens, cannot be cut; keep a copy")
        self._kept = {layer: tuple(tensor[:, :length] for tensor in kept) for layer, kept in self._kept.items()}
        self.length = length

    def take(self, row_B: Tensor) -> None:
        """Keeps these blocks in this order, as a beam search asks."""
        self._kept = {layer: tuple(tensor[row_B] for tensor in kept) for layer, kept in self._kept.items()}
