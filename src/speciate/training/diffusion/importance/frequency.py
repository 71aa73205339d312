"""Importance by frequency: how surprising a token is by itself, -log of its share of the training so far."""

from typing import ClassVar

from torch import Tensor, nn

from speciate.config.contracts.training import ImportanceOptions
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(ImportanceOptions):
    """None."""

    has_selector: ClassVar[bool] = True
    """Whether there is an importance at all."""
    published: ClassVar[bool] = True
    """Whether the original has it."""


class Importance(nn.Module):
    """Counted alone."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()

    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[None, Tensor]:
        """The surprisal."""
        return None, surprisal_BT
