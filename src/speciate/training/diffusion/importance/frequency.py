"""Importance by frequency: how surprising a token is by itself, -log of its share of the training so far."""

from typing import ClassVar

from torch import Tensor, nn

from speciate.config.components import Kind
from speciate.model.token_batch import Place, Tokens


class Options(Kind):
    """None."""

    share: ClassVar[float] = 0.0
    """Of what is learned in the importance."""
    selects: ClassVar[bool] = True
    """Whether there is an importance at all."""
    published: ClassVar[bool] = True
    """Whether the original has it."""


class Importance(nn.Module):
    """Counted alone."""

    def __init__(self, options: Options, place: Place) -> None:
        super().__init__()

    def forward(self, tokens: Tokens, surprisal_BT: Tensor) -> tuple[None, Tensor]:
        """The surprisal."""
        return None, surprisal_BT
