"""The log-linear schedule of MDLM (Sahoo et al. 2024): at time t a share t of the tokens is masked.

`eps` reproduces the two cut-offs in MDLM's code: t runs over (eps, 1] only, and the share is (1 - eps) t. That omits
both ends of the integral: with eps 1e-3 and 4 tokens the loss is .1 % below the bound
(tests/training/diffusion/test_bound.py). The default omits nothing.
"""

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.training import NoiseOptions


class Options(NoiseOptions):
    """Options of the linear schedule: its ends."""

    eps: float = Field(0.0, ge=0, le=0.01)
    """Time at which the schedule begins, and share of tokens that stays visible at its end; MDLM has 1e-3. It must be
    small, since a schedule must reach both ends."""


def mask_share(options: Options, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return (share masked, its slope in time), (B,) each; `uniform_B` in (0, 1] gives the times."""
    time_B = options.eps + (1 - options.eps) * uniform_B
    return (1 - options.eps) * time_B, time_B.new_full(time_B.shape, 1 - options.eps)
