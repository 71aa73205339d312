"""Draw a word for every mask, and keep those to which the model gives most probability (MaskGIT, Chang et al. 2022).

Which words are kept depends on what was drawn, so likely words are kept more often than they are likely. The text is
biased even one token at a time and with a perfect model (measured by enumeration in tests/evaluation/sampler).
"""

from torch import Tensor

from speciate.evaluation.sampler_options import OrderedOptions
from speciate.evaluation.unmasking import Denoise, Draws, MaskedText, lowest_scored, steps_left


class Options(OrderedOptions):
    """Options of sampling by confidence."""


class Sampler:
    """Keep the drawn words of which the model is surest."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return for each step how many are left, itself included."""
        return steps_left(num_masked, self.num_steps)

    def unmask(self, text: MaskedText, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""
        prob_BTV = denoise(text.token_BT).exp()
        word_BT = draws.categorical(prob_BTV, text.masked_BT)
        word_prob_BT = prob_BTV.gather(-1, word_BT.unsqueeze(-1)).squeeze(-1)
        kept_BT = lowest_scored(-word_prob_BT, text, index)
        return text.fill(word_BT, kept_BT)
