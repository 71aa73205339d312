"""Options that every Mixture-of-Depths has: its capacity and its predictor."""

from typing import Any

from pydantic import Field

from speciate.config.contracts.model import DepthOptions


class TokenRouterOptions(DepthOptions):
    """Capacity and predictor of a depth that lets a share of the tokens run; each kind has its own defaults."""

    capacity: float = Field(gt=0, le=1)
    """Share of a sequence's tokens that run."""
    hidden: int = Field(ge=1)
    """Number of hidden units of the predictor."""
    predictor_weight: float = Field(gt=0)
    """Weight of the predictor's loss; the loss trains the predictor alone."""

    def share_running(self) -> float:
        """Return the capacity."""
        return self.capacity

    def check(self, model: Any) -> None:
        """Refuse a capacity of less than half a token."""
        if self.capacity * model.context < 0.5:
            raise ValueError(f"capacity: {self.capacity:g} of a context of {model.context} tokens is none of them")
