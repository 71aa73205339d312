"""Ancestral sampling (Sahoo et al. 2024, MDLM's `ddpm`): the diffusion backwards, from t = 1 to 0 in even steps.

In the step from t to s each mask is lifted with probability (t - s) / t, independently, and its word drawn. With one
step every word is drawn from its own marginal; the more steps, the nearer the result is to the true distribution.
"""

from torch import Tensor

from speciate.evaluation.sampler_options import DiffusionTimeOptions
from speciate.evaluation.unmasking import Denoise, Draws, MaskedText


class Options(DiffusionTimeOptions):
    """Options of ancestral sampling."""


class Sampler:
    """Lift masks at random."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return the steps' numbers, from 0."""
        return list(range(self.num_steps))

    def unmask(self, text: MaskedText, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""
        share = 1 / (self.num_steps - index)
        lifted_BT = draws.bernoulli(text.masked_BT.double() * share)
        return text.fill(draws.categorical(denoise(text.token_BT).exp(), lifted_BT), lifted_BT)
