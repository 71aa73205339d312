"""Mamba (Gu and Dao 2023, 2312.00752): a selective state space in the place of attention.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;    y_t = C_t . h_t + D u_t;    delta, B, C depend on the token

A state of fixed size carries all that was before, so a token costs the same however long the text is. It reads from
left to right alone. Shown equal to transformers' MambaMixer on the same weights (tests/model/mixer/test_mamba.py).

B blocks of T tokens, D width.
"""

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import MixerOptions
from speciate.model.ssm.mamba_block import Mamba, Shape
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(MixerOptions):
    """Sizes; the defaults are the paper's."""

    expand: float = Field(2.0, gt=0)
    """Inner channels over the model's width."""
    state: int = Field(16, ge=1)
    """States of each channel."""
    conv: int = Field(4, ge=1)
    """Tokens that the convolution sees, its own included."""
    step_rank: int | None = Field(None, ge=1)
    """Rank of the map from a token to its step sizes; null: a sixteenth of the model's width, rounded up."""

    causal_only: ClassVar[bool] = True

    def check(self, model: Any) -> None:
        """Refuses parts of channels."""
        if self.expand * model.width % 1:
            raise ValueError(f"expand: {self.expand:g} times a width of {model.width} is no whole number of channels")
        if (self.step_rank or 1) > self.expand * model.width:
            raise ValueError(f"step_rank: {self.step_rank} is more than {self.expand * model.width:g} channels")


class Mixer(nn.Module):
    """One block of it."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        self.layer = place.layer
        model = place.model
        shape = Shape.of(model.width, options.expand, options.state, options.conv, options.step_rank)
        self.mamba = Mamba(shape, model.biases)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """What each token takes from those before it, (B, T, D)."""
        past = None if tokens.cache is None else tokens.cache.state(self.layer)
        out_BTD, kept = self.mamba(x_BTD, tokens, past)
        if tokens.cache is not None:
            tokens.cache.keep(self.layer, *kept)
        return out_BTD  # type: ignore[no-any-return]
