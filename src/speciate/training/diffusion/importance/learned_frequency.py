"""Importance by a small network and by frequency: 0.7 of the one's nats and 0.3 of the other's (ATAT's mixture)."""

from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from speciate.config.contracts.training import ImportanceOptions
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.training.diffusion.importance_network import ImportanceNetwork


class Options(ImportanceOptions):
    """The network."""

    width: int = Field(32, ge=1)
    """Dimensions of its residual stream."""
    num_layers: int = Field(1, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(2, ge=1)
    """Attention heads, each of an even number of dimensions."""

    share: float = Field(0.7, gt=0, lt=1)
    """Of what is learned in the importance."""

    has_selector: ClassVar[bool] = True
    """Whether there is an importance at all."""
    published: ClassVar[bool] = True
    """Whether the original has it."""

    def learned_share(self) -> float:
        """Return the share that the config sets."""
        return self.share

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % (2 * self.num_heads):
            raise ValueError(f"num_heads: {self.num_heads} heads of an even width do not fit a width of {self.width}")
        return self


class Importance(nn.Module):
    """Learned and counted."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        self.network = ImportanceNetwork(place, options.width, options.num_layers, options.num_heads)

    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Its logits, and the surprisal."""
        return self.network(tokens), surprisal_BT
