"""A piecewise linear schedule: the config gives the share of masked tokens at points in time."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, Strict, model_validator
from torch import Tensor

from speciate.config.contracts.training import NoiseOptions


class Options(NoiseOptions):
    """Options of the piecewise linear schedule: its points."""

    points: Annotated[tuple[Annotated[tuple[float, float], Strict(False)], ...], Strict(False)] = Field(min_length=2)
    """Points (time, share masked) from (0, 0) to (1, 1); both numbers must rise from point to point."""

    @model_validator(mode="after")
    def _rise_from_0_to_1(self) -> Self:
        first, last = self.points[0], self.points[-1]
        if first != (0.0, 0.0) or last != (1.0, 1.0):
            raise ValueError(f"points: a schedule must run from (0, 0) to (1, 1), not from {first} to {last}")
        for (time, share), (next_time, next_share) in zip(self.points[:-1], self.points[1:], strict=True):
            if next_time <= time or next_share <= share:
                points = f"{(time, share)} to {(next_time, next_share)}"
                raise ValueError(f"points: both numbers must rise, and they do not from {points}")
        return self


def mask_share(options: Options, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return (share masked, its slope in time), (B,) each; `uniform_B` in (0, 1] gives the times."""
    share_B, slope_B = uniform_B.clone(), uniform_B.clone()
    for (time, share), (next_time, next_share) in pairwise(options.points):
        slope = (next_share - share) / (next_time - time)
        in_segment_B = (uniform_B > time) & (uniform_B <= next_time)
        share_B = share_B.where(~in_segment_B, share + slope * (uniform_B - time))
        slope_B = slope_B.where(~in_segment_B, slope)
    return share_B, slope_B
