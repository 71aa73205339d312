"""Every block of every domain, once: the domains' shares are those of their text.

share of domain d = n_d / (n_1 + .. + n_D), n_d its blocks. Decision: the order is not one shuffle of all blocks, which
may begin with few of a small domain, but turns in proportion (`data/mixture/interleave.py`).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import in_turns, refuse_empty, shuffled


class Options(MixtureOptions):
    """The order."""

    seed: int = Field(0, ge=0)
    """Draws the order of each domain's blocks."""


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Which blocks the training mixture has, int32 (N, 2), domain and row; and no warnings.

    Raises:
        ValueError: a domain has no block; names it.
    """
    refuse_empty(num_blocks)
    return in_turns([shuffled(domain, blocks, options.seed) for domain, blocks in num_blocks.items()]), []
