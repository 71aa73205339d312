"""Equal shares: shuffle every domain's blocks, then truncate to the number of blocks of the smallest domain.

share of domain d = 1 / D in tokens, since all blocks have the same length. Decision: shares are equal in tokens, and
nothing is repeated. Code takes about twice as many tokens per byte as prose, so equal bytes would not be equal
training. Oversampling the small domain would show its experts the same text twice.

The contract of a mixture component is in `config/contracts/data.py`.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import equal_shares


class Options(MixtureOptions):
    """Options of truncation to the smallest domain."""

    seed: int = Field(0, ge=0)
    """Seed of the blocks that are kept of larger domains."""
    warn_ratio: float = Field(1.5, ge=1)
    """Warn if the largest domain has more than this many times the tokens of the smallest."""


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the training mixture.

    Args:
        options: the seed, and when to warn.
        num_blocks: number of training blocks of each domain, in the study's order.

    Returns:
        mixture_N2: int32 (N, 2), the domain's index and the block's row in that domain's pack; domains alternate, so
            every prefix is balanced.
        warnings: warnings for the data card.

    Raises:
        ValueError: a domain has no block; names the domain.
    """
    return equal_shares(num_blocks, options.seed, options.warn_ratio)
