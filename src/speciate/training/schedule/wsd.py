"""Warm-up, stable, decay (Hu et al. 2024): the peak until shortly before the end, then down to a share of it.

    factor(s) = (s + 1) / W                      s < W = round(warmup x steps)
              = 1                                s < S = steps - round(decay x steps)
              = final + (1 - final) shape(u)     else, u = (s - S) / (steps - S)

    shape(u) = 1 - u          linear
             = 1 - sqrt(u)    1-sqrt, which was best of those that Haegele et al. 2024 compared (2405.18392)

What comes before the decay does not depend on the run's length, so one long run serves shorter ones too. As with the
cosine, the first step of the decay is still at the peak, and no step has rate 0.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from speciate.config.contracts.training import ScheduleOptions


class Options(ScheduleOptions):
    """Shape of the curve."""

    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the rate rises."""
    decay: float = Field(0.2, ge=0, le=1)
    """Share of the steps, the last ones, in which it falls."""
    shape: Literal["linear", "1-sqrt"] = "1-sqrt"
    """How it falls."""
    final: float = Field(0.0, ge=0, le=1)
    """Where the decay ends, as a share of the peak."""

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup and decay: {self.warmup} and {self.decay} are more than the whole run")
        return self


def factor(options: Options, step: int, num_steps: int) -> float:
    """The share of the peak rate that step `step` (0 <= step < num_steps) is made with."""
    assert 0 <= step < num_steps
    num_warmup = round(options.warmup * num_steps)
    # the warm-up goes first where both round up to more than the run
    num_decay = min(round(options.decay * num_steps), num_steps - num_warmup)
    if step < num_warmup:
        return (step + 1) / num_warmup
    if step < num_steps - num_decay:
        return 1.0
    progress = (step - (num_steps - num_decay)) / num_decay
    left = 1 - progress if options.shape == "linear" else 1 - math.sqrt(progress)
    return options.final + (1 - options.final) * left
