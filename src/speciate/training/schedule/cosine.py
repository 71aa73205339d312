"""Linear warm-up, then a cosine (Loshchilov and Hutter 2017) down to a share of the peak.

    factor(s) = (s + 1) / W                                                  s < W = round(warmup x steps)
              = final + (1 - final) (1 + cos(pi (s - W) / (steps - W))) / 2  else

The last step of the warm-up reaches the peak. No step has rate 0, which would waste it.
"""

import math

from pydantic import Field

from speciate.config.contracts.training import ScheduleOptions


class Options(ScheduleOptions):
    """Options of the cosine schedule: its warm-up and its end."""

    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises to its peak."""
    final: float = Field(0.0, ge=0, le=1)
    """Learning rate at the cosine's end, as a share of the peak."""


def factor(options: Options, step: int, num_steps: int) -> float:
    """Return the share of the peak learning rate at step `step` (0 <= step < num_steps)."""
    assert 0 <= step < num_steps
    num_warmup = round(options.warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = (step - num_warmup) / (num_steps - num_warmup)
    return options.final + (1 - options.final) * (1 + math.cos(math.pi * progress)) / 2
