"""The cosine schedule (Chang et al. 2022): at time t a share 1 - cos(pi t / 2) of the tokens is masked."""

import math

from torch import Tensor

from speciate.config.contracts.training import NoiseOptions


class Options(NoiseOptions):
    """None."""


def at(options: Options, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """(share masked, its slope in time) at the times that these numbers in (0, 1] stand for."""
    angle_B = math.pi / 2 * uniform_B
    # 1 - cos a = 2 sin^2(a / 2), exact near 0 too
    return 2 * (angle_B / 2).sin().square(), math.pi / 2 * angle_B.sin()
