"""Every token runs through the block: the plain residual block.

The place where a Mixture-of-Depths decides instead: it would `run` some columns of x alone (`Tokens.take`), and put
x + r (run(x) - x) back where they came from.
"""

from collections.abc import Callable

from torch import Tensor, nn

from speciate.config.contracts.model import DepthOptions
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(DepthOptions):
    """None."""


class Depth(nn.Module):
    """Runs the block on all of x_BTD."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, run: Callable[[Tensor, TokenBatch], Tensor]) -> Tensor:
        """The block's x_BTD."""
        return run(x_BTD, tokens)
