"""The dense feed-forward layer, with the same weights for every token: y = activation(x W_in) W_out.

B blocks of T tokens, D width, F hidden units.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import FfnOptions
from speciate.model.activation import ACTIVATIONS
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(FfnOptions):
    """Size and activation of the layer."""

    hidden: int = Field(512, ge=1)
    """Number of hidden units."""
    activation: Literal["gelu", "gelu_tanh", "swiglu", "geglu_tanh"] = "gelu"
    """Activation function. gelu_tanh: GPT-2's approximation of gelu; swiglu (Llama's) and geglu_tanh (Gemma's): gated,
    with 1.5 times the parameters."""


class FeedForward(nn.Module):
    """Two linear layers around an activation."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        width, biases = context.model.width, context.model.biases
        self.activation = ACTIVATIONS[options.activation]
        self.up = nn.Linear(width, options.hidden * self.activation.inputs, bias=biases)
        self.out = nn.Linear(options.hidden, width, bias=biases)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return the layer's update, (B, T, D)."""
        y_BTD: Tensor = self.out(self.activation.apply(self.up(x_BTD)))
        return y_BTD
