"""Lift the masks of least entropy first, equally many at each step.

One at a time it is exact: the present tokens decide the position, and only then is the word drawn.
"""

from torch import Tensor

from speciate.evaluation.sampler_options import OrderedOptions
from speciate.evaluation.unmasking import Denoise, Draws, MaskedText, entropy, lowest_scored, steps_left


class Options(OrderedOptions):
    """Options of sampling in the order of entropy."""


class Sampler:
    """Lift the masks of which the model is surest first."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return for each step how many are left, itself included."""
        return steps_left(num_masked, self.num_steps)

    def unmask(self, text: MaskedText, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""
        log_prob_BTV = denoise(text.token_BT)
        lifted_BT = lowest_scored(entropy(log_prob_BTV), text, index)
        return text.fill(draws.categorical(log_prob_BTV.exp(), lifted_BT), lifted_BT)
