"""Equal parts: every domain's blocks are shuffled, then cut to the number that the smallest domain has.

share of domain d = 1 / D in tokens, since all blocks have the same length. Decision: nothing is repeated. Code takes
about twice as many tokens a byte as prose, so equal bytes would not be equal training; and oversampling the small
domain would make its experts see the same text twice.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.data.order import permutation
from speciate.kinds import Kind


class Options(Kind):
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
    empty = [domain for domain, blocks in num_blocks.items() if not blocks]
    if empty:
        found = ", ".join(f"{domain} {blocks}" for domain, blocks in num_blocks.items())
        raise ValueError(f"domains.{empty[0]}: too small for one block of the train split (blocks: {found})")
    smallest, largest = min(num_blocks, key=num_blocks.__getitem__), max(num_blocks, key=num_blocks.__getitem__)
    kept, most = num_blocks[smallest], num_blocks[largest]
    warnings = []
    if most > options.warn_ratio * kept:
        warnings.append(
            f"{largest} has {most / kept:.1f} times the tokens of {smallest} ({most} blocks, {kept} blocks); "
            f"every domain is cut to {kept} blocks"
        )
    orders = [permutation(blocks, "mixture", options.seed, domain)[:kept] for domain, blocks in num_blocks.items()]
    rows = np.stack(orders, axis=1).reshape(-1)
    return np.stack((np.tile(np.arange(len(orders)), kept), rows), axis=1).astype(np.int32), warnings
