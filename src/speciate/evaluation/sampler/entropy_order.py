"""The masks whose words are surest are lifted first: those of least entropy, so many a step.

One at a time it is exact: where is decided by what is there, and the word is drawn afterwards.
"""

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, Text, countdown, entropies, first


class Options(SamplerOptions):
    """Steps."""

    num_steps: int | None = Field(None, ge=1)
    """Steps; null: as many as there are masks, one at a time."""


class Sampler:
    """Lifts the surest masks first."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def plan(self, num_masked: int) -> list[int]:
        """The steps' numbers: how many are left."""
        return countdown(num_masked, self.num_steps)

    def step(self, text: Text, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """The tokens after one step, (B, T)."""
        log_prob_BTV = denoise(text.token_BT)
        lifted_BT = first(entropies(log_prob_BTV), text, index)
        return text.filled(draws.choose(log_prob_BTV.exp(), lifted_BT), lifted_BT)
