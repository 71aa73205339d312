"""Weighted shares of the training blocks: `weights: {code: 4, prose: 1}` is an imbalance of 4 to 1.

n_d = N w_d / (w_1 + .. + w_D), rounded by largest remainder, so that the n_d sum to N.

Decision: N is the largest number for which no block is needed twice, unless `blocks` asks for more. Then a domain with
too few blocks runs through all of them again, in another order. Its epochs, n_d over its blocks, exceed one: that is a
warning, or an error with `repeat: refuse`. The domains are interleaved in proportion (`data/mixture/interleave.py`).
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import concatenate_epochs, interleave, require_blocks, shuffled_blocks


class Options(MixtureOptions):
    """Options of a mixture by weights."""

    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    """Domain -> weight of its share of the training blocks; every domain of the study needs one."""
    blocks: int | None = Field(None, ge=1)
    """Number of training blocks of all domains together; null uses as many as possible without repeating a block."""
    repeat: Literal["warn", "refuse"] = "warn"
    """What to do if a domain has fewer blocks than its share of `blocks`: repeat blocks with a warning, or fail."""
    seed: int = Field(0, ge=0)
    """Seed of the order of each domain's blocks."""

    def check_domains(self, domains: tuple[str, ...]) -> None:
        """Raise a ValueError unless exactly the study's domains have weights."""
        if set(self.weights) != set(domains):
            raise ValueError(
                f"mixture.weights: needs one for each of {', '.join(domains)}, not for {', '.join(self.weights)}"
            )


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the training mixture.

    Args:
        options: the weights.
        num_blocks: number of training blocks of each domain, in the study's order.

    Returns:
        mixture_N2: int32 (N, 2), the domain's index and the block's row in that domain's pack.
        warnings: one line for each domain whose blocks are used more than once.

    Raises:
        ValueError: a domain has no weight, no block or less than one block as its share, or would repeat blocks
            although `repeat` is refuse.
    """
    options.check_domains(tuple(num_blocks))
    require_blocks(num_blocks)
    counts = share_blocks(options, num_blocks)
    warnings, rows = [], []
    for domain, blocks in num_blocks.items():
        count = counts[domain]
        if count > blocks:
            problem = f"{domain} has {blocks} blocks, and its share is {count}: each is used {count / blocks:.2f} times"
            if options.repeat == "refuse":
                raise ValueError(
                    f"mixture.blocks: {problem}; at most {_max_blocks_without_repeats(options, num_blocks)} "
                    "can be used without repeats"
                )
            warnings.append(problem)
        epochs = [shuffled_blocks(domain, blocks, options.seed)]
        epochs += [shuffled_blocks(domain, blocks, options.seed, epoch) for epoch in range(1, -(-count // blocks))]
        rows.append(concatenate_epochs(epochs, count))
    return interleave(rows), warnings


def share_blocks(options: Options, num_blocks: Mapping[str, int]) -> dict[str, int]:
    """Return the training blocks of each domain, repeats included. Raises ValueError if a domain would have none."""
    total = _max_blocks_without_repeats(options, num_blocks) if options.blocks is None else options.blocks
    exact = {domain: total * share for domain, share in _exact_shares(options, num_blocks).items()}
    counts = {domain: math.floor(count) for domain, count in exact.items()}
    by_remainder = sorted(exact, key=lambda domain: counts[domain] - exact[domain])
    for domain in by_remainder[: total - sum(counts.values())]:
        counts[domain] += 1
    for domain, count in counts.items():
        if not count:
            raise ValueError(f"mixture.weights.{domain}: its share of {total} blocks is less than one")
    return counts


def _exact_shares(options: Options, num_blocks: Mapping[str, int]) -> dict[str, Fraction]:
    """Return the shares from the decimal numbers in the study file, so that 0.8 of 10 blocks is 8."""
    weights = {domain: Fraction(str(options.weights[domain])) for domain in num_blocks}
    return {domain: weight / sum(weights.values()) for domain, weight in weights.items()}


def _max_blocks_without_repeats(options: Options, num_blocks: Mapping[str, int]) -> int:
    """Return the largest number of blocks for which no domain needs one twice."""
    return math.floor(min(num_blocks[domain] / share for domain, share in _exact_shares(options, num_blocks).items()))
