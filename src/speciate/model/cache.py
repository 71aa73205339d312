"""What a decoder keeps of the tokens it has read, so that one more token costs one token's work.

Each mixer keeps its own tensors under its layer: attention the keys and values of every token before, with their
positions and documents, which say who may see them. Feed-forward layers and routers look at a token by itself,
and keep nothing.

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

    def append(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Everything that `layer` has kept, these included: each (B, S, ...), joined along the tokens."""
        old = self._kept.get(layer)
        kept = new if old is None else tuple(torch.cat(pair, dim=1) for pair in zip(old, new, strict=True))
        self._kept[layer] = kept
        return kept

    def take(self, row_B: Tensor) -> None:
        """Keeps these blocks in this order, as a beam search asks."""
        self._kept = {layer: tuple(tensor[row_B] for tensor in kept) for layer, kept in self._kept.items()}
