"""Equal parts: every domain's blocks are shuffled, then cut to the number that the smallest domain has.

share of domain d = 1 / D in tokens, since all blocks have the same length. Decision: nothing is repeated. Code takes
about twice as many tokens a byte as prose, so equal bytes would not be equal training; and oversampling the small
domain would make its experts see the same text twice.

A mixture kind offers `mix(options, num_blocks)`, and may offer `relabel(options, documents, name)`, which gives the
documents of the held-out set `name` other domains; its Options then say by `labels(domains)` what those are called.
`check_domains(domains)` of the Options refuses what does not fit the study's domains.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import equal_parts


class Options(MixtureOptions):
    """The options of truncation to the smallest domain."""

    seed: int = Field(0, ge=0)
    """Draws which blocks of the larger domains are kept."""
    warn_ratio: float = Field(1.5, ge=1)
    """Warn where the largest domain has more than this times the tokens of the smallest."""


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Which blocks the training mixture has.

    Args:
        options: the seed and when to warn.
        num_blocks: training blocks of each domain, in the study's order.

    Returns:
        mixture_N2: int32 (N, 2), the domain's index and the block's row in that domain's pack; domains take turns, so
            that the blocks up to any row are balanced.
        warnings: what a reader of the study should know.

    Raises:
        ValueError: a domain has no block; names it.
    """
    return equal_parts(num_blocks, options.seed, options.warn_ratio)
