"""Importance by frequency: a token's surprisal by itself, -log of its share of the training tokens so far."""

from typing import ClassVar

from torch import Tensor, nn

from speciate.config.contracts.training import ImportanceOptions
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(ImportanceOptions):
    """Options of the importance by frequency: none."""

    published: ClassVar[bool] = True
    """Whether the original release has it."""


class Importance(nn.Module):
    """The token's surprisal; it has no parameters."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()

    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[None, Tensor]:
        """Return no logits, and the surprisal, (B, T)."""
        return None, surprisal_BT
