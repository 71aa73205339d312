"""Ancestral sampling (Sahoo et al. 2024, MDLM's `ddpm`): time runs from 1 to 0 in even steps, the diffusion backwards.

In the step from t to s each mask is lifted with probability (t - s) / t, by itself, and its word drawn. With one step
every word is drawn from its own marginal; the true distribution is approached as the steps grow in number.
"""

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, Text


class Options(SamplerOptions):
    """Steps."""

    num_steps: int = Field(64, ge=1)
    """Steps from t = 1 to t = 0."""


class Sampler:
    """Lifts masks at random."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def plan(self, num_masked: int) -> list[int]:
        """The steps' numbers."""
        return list(range(self.num_steps))

    def step(self, text: Text, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """The tokens after one step, (B, T)."""
        share = 1 / (self.num_steps - index)
        lifted_BT = draws.happens(text.masked_BT.double() * share)
        return text.filled(draws.choose(denoise(text.token_BT).exp(), lifted_BT), lifted_BT)
