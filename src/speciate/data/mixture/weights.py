"""Shares of the training blocks as the study asks: `weights: {code: 4, prose: 1}` is an imbalance of 4 to 1.

n_d = N w_d / (w_1 + .. + w_D), rounded by largest remainder, so that the n_d add up to N.

Decision: N is the largest number for which no domain needs a block twice, unless `blocks` asks for more; then a domain
that has too few starts again from its first block to its last, in another order, and its epochs, n_d over its blocks,
are more than one: a warning, or with `repeat: refuse` an error. Domains take turns in proportion (`data/mixture/interleave.py`).
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import end_to_end, in_turns, refuse_empty, shuffled


class Options(MixtureOptions):
    """The shares, and how many blocks."""

    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    """Domain -> its share of the training blocks, in any unit; every domain of the study has one."""
    blocks: int | None = Field(None, ge=1)
    """Training blocks of all domains; null: as many as there can be with no block used twice."""
    repeat: Literal["warn", "refuse"] = "warn"
    """What happens where a domain has fewer blocks than its share of `blocks`."""
    seed: int = Field(0, ge=0)
    """Draws the order of each domain's blocks."""

    def check_domains(self, domains: tuple[str, ...]) -> None:
        """Refuses weights of other domains than the study's. Raises ValueError."""
        if set(self.weights) != set(domains):
            raise ValueError(
                f"mixture.weights: needs one for each of {', '.join(domains)}, not for {', '.join(self.weights)}"
            )


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Which blocks the training mixture has.

    Args:
        options: the weights.
        num_blocks: training blocks of each domain, in the study's order.

    Returns:
        mixture_N2: int32 (N, 2), the domain's index and the block's row in that domain's pack.
        warnings: a line a domain whose blocks are used more than once.

    Raises:
        ValueError: no weight or no block for a domain, a share of less than a block, or a repetition that is refused.
    """
    options.check_domains(tuple(num_blocks))
    refuse_empty(num_blocks)
    wanted = shares(options, num_blocks)
    warnings, rows = [], []
    for domain, blocks in num_blocks.items():
        count = wanted[domain]
        if count > blocks:
            why = f"{domain} has {blocks} blocks, and its share is {count}: each is used {count / blocks:.2f} times"
            if options.repeat == "refuse":
                raise ValueError(f"mixture.blocks: {why}; at most {_most(options, num_blocks)} repeat nothing")
            warnings.append(why)
        epochs = [shuffled(domain, blocks, options.seed)]
        epochs += [shuffled(domain, blocks, options.seed, epoch) for epoch in range(1, -(-count // blocks))]
        rows.append(end_to_end(epochs, count))
    return in_turns(rows), warnings


def shares(options: Options, num_blocks: Mapping[str, int]) -> dict[str, int]:
    """Training blocks of each domain, with repetition. Raises ValueError where a domain would have none."""
    total = _most(options, num_blocks) if options.blocks is None else options.blocks
    exact = {domain: total * share for domain, share in _exact(options, num_blocks).items()}
    wanted = {domain: math.floor(count) for domain, count in exact.items()}
    by_remainder = sorted(exact, key=lambda domain: wanted[domain] - exact[domain])
    for domain in by_remainder[: total - sum(wanted.values())]:
        wanted[domain] += 1
    for domain, count in wanted.items():
        if not count:
            raise ValueError(f"mixture.weights.{domain}: its share of {total} blocks is less than one")
    return wanted


def _exact(options: Options, num_blocks: Mapping[str, int]) -> dict[str, Fraction]:
    """The shares as the decimal numbers that the study file has, so that 0.8 of 10 blocks is 8."""
    weights = {domain: Fraction(str(options.weights[domain])) for domain in num_blocks}
    return {domain: weight / sum(weights.values()) for domain, weight in weights.items()}


def _most(options: Options, num_blocks: Mapping[str, int]) -> int:
    """The largest number of blocks for which no domain needs one twice."""
    return math.floor(min(num_blocks[domain] / share for domain, share in _exact(options, num_blocks).items()))
