"""What travels through the blocks beside x: which tokens these are. And where in which model a component stands.

A block may see only some of a sequence's tokens (behind a Mixture-of-Depths), so a token's identity is never its place
in x: routers that hash need its id, rotary embeddings its position, an observer its place in the whole batch.

B blocks of T tokens; K of the T kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speciate import spec


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """The tokens that a part of the model is looking at, in the order of x's rows; integers, all of one shape."""

    id_BT: Tensor
    """Token id."""
    position_BT: Tensor
    """Position in the block, from 0."""
    index_BT: Tensor
    """Position in the flattened batch: what a Selection calls its decisions by."""
    document_BT: Tensor | None
    """Document, where attention must not cross from one to another; None: a block is one context (GPT-2's way)."""

    @classmethod
    def of(cls, token_BT: Tensor, document_BT: Tensor | None = None) -> Tokens:
        """All tokens of a batch of blocks."""
        index_BT = torch.arange(token_BT.numel(), device=token_BT.device).view(token_BT.shape)
        return cls(token_BT, index_BT % token_BT.shape[1], index_BT, document_BT)

    def take(self, column_BK: Tensor) -> Tokens:
        """The tokens of these columns of each row; `column_BK` ascends, so that causal order is kept."""
        return Tokens(
            id_BT=self.id_BT.gather(1, column_BK),
            position_BT=self.position_BT.gather(1, column_BK),
            index_BT=self.index_BT.gather(1, column_BK),
            document_BT=None if self.document_BT is None else self.document_BT.gather(1, column_BK),
        )


@dataclass(frozen=True)
class Place:
    """Where in which model a component stands: all that it is built from, its own options aside."""

    model: spec.Model
    layer: int
    """From 0."""
    vocabulary: int
    seed: int = 0
    """Of what a component draws once and never learns."""
