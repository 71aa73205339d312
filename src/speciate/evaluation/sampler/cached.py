"""Ancestral sampling that calls the model only after a change of the text (MDLM's `ddpm_cache`).

The denoiser gets no time, so its answer stays the same while no mask is lifted. With the same draws the text is that
of `ancestral`, token for token; with many steps and few masks, most steps cost nothing.
"""

from pydantic import Field
from torch import Tensor

from speciate.evaluation.sampler_options import DiffusionTimeOptions
from speciate.evaluation.unmasking import Denoise, Draws, MaskedText


class Options(DiffusionTimeOptions):
    """Options of cached ancestral sampling."""

    num_steps: int = Field(256, ge=1)
    """Number of steps from t = 1 to t = 0."""


class Sampler:
    """Lift masks at random, and reuse the last answer."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps
        self._cached_tokens: Tensor | None = None
        self._cached_probs: Tensor | None = None

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return the steps' numbers, from 0."""
        return list(range(self.num_steps))

    def unmask(self, text: MaskedText, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""
        lifted_BT = draws.bernoulli(text.masked_BT.double() / (self.num_steps - index))
        cached = self._cached_tokens
        if self._cached_probs is None or cached is None or not text.token_BT.equal(cached):
            self._cached_tokens, self._cached_probs = text.token_BT, denoise(text.token_BT).exp()
        return text.fill(draws.categorical(self._cached_probs, lifted_BT), lifted_BT)
