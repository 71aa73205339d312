"""Control: importance that means nothing, exponentially distributed, drawn from the text for each of its positions.

The same block has the same importance at every step, so it could be learned by heart, as a learned one is.
"""

from typing import ClassVar

from torch import Tensor, nn

from speciate.config.contracts.training import ImportanceOptions
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.training.diffusion.fixed_uniforms import uniforms


class Options(ImportanceOptions):
    """None."""

    has_selector: ClassVar[bool] = True
    """Whether there is an importance at all."""
    published: ClassVar[bool] = False
    """Whether the original has it."""


KEY = -1
"""Of the draw; masks of the evaluation have keys from 0."""


class Importance(nn.Module):
    """Drawn."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()

    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[None, Tensor]:
        """Nats of mean 1."""
        return None, -(1 - uniforms(tokens.id_BT, KEY)).log()
