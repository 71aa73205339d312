"""A schedule of your own: the share of masked tokens runs straight from each of these points in time to the next."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, Strict, model_validator
from torch import Tensor

from speciate.config.contracts.training import NoiseOptions


class Options(NoiseOptions):
    """The points."""

    points: Annotated[tuple[Annotated[tuple[float, float], Strict(False)], ...], Strict(False)] = Field(min_length=2)
    """(time, share masked), both rising, from (0, 0) to (1, 1)."""

    @model_validator(mode="after")
    def _reaches(self) -> Self:
        first, last = self.points[0], self.points[-1]
        if first != (0.0, 0.0) or last != (1.0, 1.0):
            ends = f"from {first} to {last}"
            raise ValueError(f"points: a schedule must reach 0 and 1: from (0, 0) to (1, 1), not {ends}")
        for (time, share), (later, more) in zip(self.points[:-1], self.points[1:], strict=True):
            if later <= time or more <= share:
                raise ValueError(f"points: both numbers must rise, and do not from {(time, share)} to {(later, more)}")
        return self


def at(options: Options, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """(share masked, its slope in time) at the times that these numbers in (0, 1] stand for."""
    share_B, slope_B = uniform_B.clone(), uniform_B.clone()
    for (time, share), (later, more) in pairwise(options.points):
        slope = (more - share) / (later - time)
        here_B = (uniform_B > time) & (uniform_B <= later)
        share_B = share_B.where(~here_B, share + slope * (uniform_B - time))
        slope_B = slope_B.where(~here_B, slope)
    return share_B, slope_B
