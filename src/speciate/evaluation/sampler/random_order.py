"""Masks are lifted in a random order, so many a step: the any-order autoregressive model (Hoogeboom et al. 2022).

One at a time it is exact, whatever the order: each word is drawn given all before it.
"""

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, Text, countdown, first


class Options(SamplerOptions):
    """Steps."""

    num_steps: int | None = Field(None, ge=1)
    """Steps; null: as many as there are masks, one at a time."""


class Sampler:
    """Lifts masks in a random order."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def plan(self, num_masked: int) -> list[int]:
        """The steps' numbers: how many are left."""
        return countdown(num_masked, self.num_steps)

    def step(self, text: Text, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """The tokens after one step, (B, T)."""
        lifted_BT = first(draws.shuffle(text.masked_BT), text, index)
        return text.filled(draws.choose(denoise(text.token_BT).exp(), lifted_BT), lifted_BT)
