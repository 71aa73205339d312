"""The dense feed-forward layer: y = activation(x W_in) W_out, the same weights for every token.

B blocks of T tokens, D width, F hidden units.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import FfnOptions
from speciate.model.activation import ACTIVATIONS
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(FfnOptions):
    """Size and activation."""

    hidden: int = Field(512, ge=1)
    """Hidden units."""
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu"
    """gelu; gelu_tanh: the approximation that GPT-2 has; swiglu: gated, with half as many parameters again."""


class FeedForward(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        width, biases = place.model.width, place.model.biases
        self.activation = ACTIVATIONS[options.activation]
        self.up = nn.Linear(width, options.hidden * self.activation.inputs, bias=biases)
        self.out = nn.Linear(options.hidden, width, bias=biases)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """The layer's update, (B, T, D)."""
        y_BTD: Tensor = self.out(self.activation.of(self.up(x_BTD)))
        return y_BTD
