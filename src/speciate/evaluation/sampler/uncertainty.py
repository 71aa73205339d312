"""ATAT's sampler: the masks that the model is least sure of are lifted first, weighed by their importance.

    score_i = H(p_i) w_i;   a step lifts the given share of the masks that are left, highest score first

It is the opposite of `entropy_order`. w is the estimator's, or 1 of a model that has none. One at a time it is exact.
"""

import math

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, Text, entropies, ranks


class Options(SamplerOptions):
    """Steps."""

    fraction: float = Field(0.1, gt=0, le=1)
    """Share of the masks left that a step lifts, one at least."""
    weighed: bool = True
    """By importance, where the model has an estimator; false: by entropy alone."""


class Sampler:
    """Lifts the least sure masks first."""

    def __init__(self, options: Options) -> None:
        self.fraction, self.weighed = options.fraction, options.weighed

    def plan(self, num_masked: int) -> list[int]:
        """A number for each step that the row with most masks takes."""
        steps = 0
        while num_masked:
            num_masked -= max(1, math.ceil(self.fraction * num_masked))
            steps += 1
        return list(range(steps))

    def step(self, text: Text, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """The tokens after one step, (B, T)."""
        log_prob_BTV = denoise(text.token_BT)
        score_BT = entropies(log_prob_BTV)
        if self.weighed and text.importance is not None:
            score_BT = score_BT * text.importance(text.token_BT).double()
        left_B = text.masked_BT.sum(1)
        count_B1 = (self.fraction * left_B).ceil().long().clamp(min=1).unsqueeze(1)
        lifted_BT = (ranks(-score_BT, text.masked_BT) < count_B1) & text.masked_BT
        return text.filled(draws.choose(log_prob_BTV.exp(), lifted_BT), lifted_BT)
