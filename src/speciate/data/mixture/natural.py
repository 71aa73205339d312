"""Use every block of every domain once, so each domain's share is its share of the text.

share of domain d = n_d / (n_1 + .. + n_D), n_d its number of blocks. Decision: the blocks are interleaved in proportion
(`data/mixture/interleave.py`). A shuffle of all blocks might begin with few blocks of a small domain.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import interleave, require_blocks, shuffled_blocks


class Options(MixtureOptions):
    """Options of the natural mixture."""

    seed: int = Field(0, ge=0)
    """Seed of the order of each domain's blocks."""


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the training mixture, int32 (N, 2), domain index and row in its pack; and no warnings.

    Raises:
        ValueError: a domain has no block; names the domain.
    """
    require_blocks(num_blocks)
    return interleave([shuffled_blocks(domain, blocks, options.seed) for domain, blocks in num_blocks.items()]), []
