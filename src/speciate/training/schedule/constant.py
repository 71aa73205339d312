"""Linear warm-up, then the peak to the end: for runs whose length is not under study.

factor(s) = (s + 1) / W     s < W = round(warmup x steps)
          = 1               else
"""

from pydantic import Field

from speciate.config.contracts.training import ScheduleOptions


class Options(ScheduleOptions):
    """Options of the constant schedule: its warm-up."""

    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises to its peak."""


def factor(options: Options, step: int, num_steps: int) -> float:
    """Return the share of the peak learning rate at step `step` (0 <= step < num_steps)."""
    assert 0 <= step < num_steps
    num_warmup = round(options.warmup * num_steps)
    return (step + 1) / num_warmup if step < num_warmup else 1.0
