"""Ancestral sampling that asks the model only where something has changed (MDLM's `ddpm_cache`).

The denoiser knows no time, so while no mask is lifted its answer stays the same. With the same draws the text is that
of `ancestral`, token for token; with many steps and few masks most steps cost nothing.
"""

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, Text


class Options(SamplerOptions):
    """Steps."""

    num_steps: int = Field(256, ge=1)
    """Steps from t = 1 to t = 0."""


class Sampler:
    """Lifts masks at random, and remembers the last answer."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps
        self._asked: Tensor | None = None
        self._answer: Tensor | None = None

    def plan(self, num_masked: int) -> list[int]:
        """The steps' numbers."""
        return list(range(self.num_steps))

    def step(self, text: Text, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """The tokens after one step, (B, T)."""
        lifted_BT = draws.happens(text.masked_BT.double() / (self.num_steps - index))
        if self._answer is None or self._asked is None or not text.token_BT.equal(self._asked):
            self._asked, self._answer = text.token_BT, denoise(text.token_BT).exp()
        return text.filled(draws.choose(self._answer, lifted_BT), lifted_BT)
