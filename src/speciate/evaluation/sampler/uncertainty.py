"""ATAT's sampler: lift the masks of which the model is least sure first, weighted by their importance.

    score_i = H(p_i) w_i;   a step lifts the given share of the masks that are left, highest score first

Its order is the opposite of `entropy_order`. w is the estimator's importance, or 1 for a model that has none. One at a
time it is exact.
"""

import math

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.evaluation import SamplerOptions
from speciate.evaluation.unmasking import Denoise, Draws, MaskedText, entropy, rank_in_row


class Options(SamplerOptions):
    """Options of sampling by uncertainty."""

    fraction: float = Field(0.1, gt=0, le=1)
    """Share of the remaining masks that a step lifts, at least one."""
    weighed: bool = True
    """Whether the entropy is multiplied by the importance, where the model has an estimator."""


class Sampler:
    """Lift the masks of which the model is least sure first."""

    def __init__(self, options: Options) -> None:
        self.fraction, self.weighted = options.fraction, options.weighed

    def step_numbers(self, num_masked: int) -> list[int]:
        """Return a number for each step that the row with most masks takes."""
        steps = 0
        while num_masked:
            num_masked -= max(1, math.ceil(self.fraction * num_masked))
            steps += 1
        return list(range(steps))

    def unmask(self, text: MaskedText, denoise: Denoise, draws: Draws, index: int) -> Tensor:
        """Return the tokens after one step, (B, T)."""
        log_prob_BTV = denoise(text.token_BT)
        score_BT = entropy(log_prob_BTV)
        if self.weighted and text.importance is not None:
            score_BT = score_BT * text.importance(text.token_BT).double()
        num_left_B = text.masked_BT.sum(1)
        count_B1 = (self.fraction * num_left_B).ceil().long().clamp(min=1).unsqueeze(1)
        lifted_BT = (rank_in_row(-score_BT, text.masked_BT) < count_B1) & text.masked_BT
        return text.fill(draws.categorical(log_prob_BTV.exp(), lifted_BT), lifted_BT)
