"""Base class of the kinds of model/depth, which decide which tokens run through a block."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from speciate.model.token_batch import TokenBatch

Run = Callable[[Tensor, TokenBatch], Tensor]
"""The wrapped part of a block: (x_BTD, tokens) -> x_BTD, the residual stream after it."""


class BlockDepth(nn.Module, ABC):
    """A kind of depth, with its hooks' defaults."""

    wraps_ffn: ClassVar[bool] = False
    """Whether it wraps the feed-forward layer alone, so that the mixer runs on all tokens before it."""
    share: float = 1.0
    """Share of the tokens that run in training."""

    @abstractmethod
    def forward(self, x_BTD: Tensor, tokens: TokenBatch, run: Run) -> Tensor:
        """Return the residual stream after the block, (B, T, D), in which `run` has served some of the tokens."""
