"""A word is drawn for every mask; those that the model gives most probability stay (MaskGIT, Chang et al. 2022).

What is kept depends on what was drawn, so likely words are kept more often than they are likely: the text is biased
even one token at a time and with a perfect model (measured by enumeration in tests/evaluation/sampler).
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
    """Keeps the drawn words of which the model is surest."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def plan(self, num_masked: int) -> list[int]:
        """The steps' numbers: how many are left."""
        return countdown(num_masked, self.num_steps)

    def step(self, text: Text, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """The tokens after one step, (B, T)."""
        prob_BTV = denoise(text.token_BT).exp()
        word_BT = draws.choose(prob_BTV, text.masked_BT)
        drawn_BT = prob_BTV.gather(-1, word_BT.unsqueeze(-1)).squeeze(-1)
        kept_BT = first(-drawn_BT, text, index)
        return text.filled(word_BT, kept_BT)
