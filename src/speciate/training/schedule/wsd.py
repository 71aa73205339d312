"""Warm-up, stable, decay (Hu et al. 2024): the peak until near the end, then a decay to a share of it.

    factor(s) = (s + 1) / W                      s < W = round(warmup x steps)
              = 1                                s < S = steps - round(decay x steps)
              = final + (1 - final) shape(u)     else, u = (s - S) / (steps - S)

    shape(u) = 1 - u          linear
             = 1 - sqrt(u)    1-sqrt, the best of those that Haegele et al. 2024 compared (2405.18392)

The part before the decay does not depend on the run's length, so one long run serves shorter ones too. As with the
cosine, the first step of the decay is still at the peak, and no step has rate 0.
"""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from speciate.config.contracts.training import ScheduleOptions


class Options(ScheduleOptions):
    """Options of the schedule: its warm-up and its decay."""

    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises to its peak."""
    decay: float = Field(0.2, ge=0, le=1)
    """Share of the steps, at the end, over which the learning rate falls."""
    shape: Literal["linear", "1-sqrt"] = "1-sqrt"
    """Shape of the decay over its share u. linear: 1 - u; 1-sqrt: 1 - sqrt(u)."""
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the decay's end, as a share of the peak."""

    @model_validator(mode="after")
    def _fits_the_run(self) -> Self:
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup and decay: {self.warmup} and {self.decay} add up to more than the whole run")
        return self


def factor(options: Options, step: int, num_steps: int) -> float:
    """Return the share of the peak learning rate at step `step` (0 <= step < num_steps)."""
    assert 0 <= step < num_steps
    num_warmup = round(options.warmup * num_steps)
    # the warm-up has priority where both round up to more than the run
    num_decay = min(round(options.decay * num_steps), num_steps - num_warmup)
    if step < num_warmup:
        return (step + 1) / num_warmup
    if step < num_steps - num_decay:
        return 1.0
    progress = (step - (num_steps - num_decay)) / num_decay
    shape = 1 - progress if options.shape == "linear" else 1 - math.sqrt(progress)
    return options.final + (1 - options.final) * shape
