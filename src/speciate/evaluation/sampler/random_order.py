"""Lift masks in a random order, equally many at each step: any-order autoregression (Hoogeboom et al. 2022).

One at a time it is exact, whatever the order: each word is drawn given all before it.
"""

from torch import Tensor

from speciate.evaluation.sampler_options import OrderedOptions
from speciate.evaluation.unmasking import Denoise, Draws, MaskedText, lowest_scored, steps_left


class Options(OrderedOptions):
    """Options of sampling in a random order."""


class Sampler:
    """Lift masks in a random order."""

    def __init__(self, options: Options) -> None:
        self.num_steps = options.num_steps

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return for each step how many are left, itself included."""
        return steps_left(num_masked, self.num_steps)

    def unmask(self, text: MaskedText, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""
        lifted_BT = lowest_scored(draws.random_ranks(text.masked_BT), text, index)
        return text.fill(draws.categorical(denoise(text.token_BT).exp(), lifted_BT), lifted_BT)
