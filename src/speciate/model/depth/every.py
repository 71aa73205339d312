"""The plain residual block: every token runs through it.

A Mixture-of-Depths decides otherwise: it runs some columns of x alone (`TokenBatch.select`), and puts
x + r (run(x) - x) back where they came from.
"""

from torch import Tensor

from speciate.config.contracts.model import DepthOptions
from speciate.model.depth_base import BlockDepth, Run
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(DepthOptions):
    """No options."""


class Depth(BlockDepth):
    """Runs the block on all tokens."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, run: Run) -> Tensor:
        """Return the residual stream after the block, (B, T, D)."""
        return run(x_BTD, tokens)
