"""Control: a meaningless importance, exponentially distributed, drawn for each position from the block's own text.

The same block has the same importance at every step, so a model could memorise it, as it could a learned one.
"""

from torch import Tensor, nn

from speciate.config.contracts.training import ImportanceOptions
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.training.diffusion.fixed_uniforms import uniforms


class Options(ImportanceOptions):
    """Options of the random importance: none."""


DRAW_KEY = -1
"""Key of the draw; the masks of evaluation have keys from 0."""


class Importance(nn.Module):
    """Fixed random numbers; it has no parameters."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()

    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[None, Tensor]:
        """Return no logits, and an importance of mean 1 nat, (B, T)."""
        return None, -(1 - uniforms(tokens.id_BT, DRAW_KEY)).log()
