"""The log-linear schedule of MDLM (Sahoo et al. 2024): at time t a share t of the tokens is masked.

With `eps` it is the pair that their code has: t runs over (eps, 1] alone, and the share is (1 - eps) t. That leaves out
both ends of the integral: with eps 1e-3 and 4 tokens the loss is .1 % below the bound (tests/training/diffusion/test_bound.py).
The default leaves out nothing.
"""

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.training import NoiseOptions


class Options(NoiseOptions):
    """Ends."""

    eps: float = Field(0.0, ge=0, le=0.01)
    """Where time begins, and the share of tokens that stays visible at its end; MDLM has 1e-3. A schedule
    must reach both ends, so it is small."""


def at(options: Options, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """(share masked, its slope in time) at the times that these numbers in (0, 1] stand for."""
    time_B = options.eps + (1 - options.eps) * uniform_B
    return (1 - options.eps) * time_B, time_B.new_full(time_B.shape, 1 - options.eps)
