"""Options that every Mamba mixer has: the sizes of its block."""

from typing import Any, ClassVar

from pydantic import Field

from speciate.config.contracts.model import MixerOptions


class MambaSizeOptions(MixerOptions):
    """Sizes of a Mamba block; the defaults are the paper's."""

    expand: float = Field(2.0, gt=0)
    """Number of inner channels, as a multiple of the model's width."""
    state: int = Field(16, ge=1)
    """Number of states of each channel."""
    conv: int = Field(4, ge=1)
    """Number of tokens that the convolution sees, the current one included."""
    step_rank: int | None = Field(None, ge=1)
    """Rank of the map from a token to its step sizes; null: a sixteenth of the model's width, rounded up."""

    causal_only: ClassVar[bool] = True

    def check(self, model: Any) -> None:
        """Refuse a fraction of a channel, and a rank above the number of channels."""
        if self.expand * model.width % 1:
            raise ValueError(f"expand: {self.expand:g} times a width of {model.width} is no whole number of channels")
        if (self.step_rank or 1) > self.expand * model.width:
            raise ValueError(f"step_rank: {self.step_rank} is more than {self.expand * model.width:g} channels")
