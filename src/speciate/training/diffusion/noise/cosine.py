"""The cosine schedule (Chang et al. 2022): at time t a share 1 - cos(pi t / 2) of the tokens is masked."""

import math

from torch import Tensor

from speciate.config.contracts.training import NoiseOptions


class Options(NoiseOptions):
    """Options of the cosine schedule: none."""


def mask_share(options: Options, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return (share masked, its slope in time), (B,) each; `uniform_B` in (0, 1] gives the times."""
    angle_B = math.pi / 2 * uniform_B
    # 1 - cos a = 2 sin^2(a / 2), exact near 0 too
    return 2 * (angle_B / 2).sin().square(), math.pi / 2 * angle_B.sin()
