"""Linear warm-up, then a cosine (Loshchilov and Hutter 2017) down to a share of the peak.

    factor(s) = (s + 1) / W                                                  s < W = round(warmup x steps)
              = final + (1 - final) (1 + cos(pi (s - W) / (steps - W))) / 2  else

The peak is reached with the last step of the warm-up; no step has rate 0, which would waste it.
"""

import math

from pydantic import Field

from speciate.config.contracts.training import ScheduleOptions


class Options(ScheduleOptions):
    """Shape of the curve."""

    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps in which the rate rises."""
    final: float = Field(0.0, ge=0, le=1)
    """Where the cosine ends, as a share of the peak."""


def factor(options: Options, step: int, num_steps: int) -> float:
    """The share of the peak rate that step `step` (0 <= step < num_steps) is made with."""
    assert 0 <= step < num_steps
    num_warmup = round(options.warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = (step - num_warmup) / (num_steps - num_warmup)
    return options.final + (1 - options.final) * (1 + math.cos(math.pi * progress)) / 2
