"""Negative control: one domain alone, cut into pseudo-domains that differ in nothing.

label of a document = <domain>_k,  k = 1 + BLAKE2b(seed, group) mod parts

Training has all blocks of that domain and of no other. The pseudo-domains of the held-out documents are drawn by group,
so that near copies stay together; a selector that seems to tell them apart shows what the analysis finds in nothing.
A block may hold documents of several pseudo-domains: the label is the document's, never the block's.
"""

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import in_turns, refuse_empty, shuffled


class Options(MixtureOptions):
    """Which domain, and in how many parts."""

    domain: str
    """The domain that is split; the study's others are left out."""
    parts: int = Field(3, ge=2)
    """Pseudo-domains."""
    seed: int = Field(0, ge=0)
    """Draws which group is in which part, and the order of the blocks."""

    relabels: ClassVar[bool] = True

    def check_domains(self, domains: tuple[str, ...]) -> None:
        """Refuses a domain that the study does not have. Raises ValueError."""
        if self.domain not in domains:
            raise ValueError(f"mixture.domain: there is no domain {self.domain}; there are: {', '.join(domains)}")

    def labels(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """What the pseudo-domains are called."""
        self.check_domains(domains)
        return tuple(f"{self.domain}_{part + 1}" for part in range(self.parts))


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Which blocks the training mixture has: all of the domain, int32 (N, 2), its index and the row in its pack.

    Raises:
        ValueError: there is no such domain, or it has no block.
    """
    options.check_domains(tuple(num_blocks))
    blocks = num_blocks[options.domain]
    refuse_empty({options.domain: blocks})
    index = list(num_blocks).index(options.domain)
    none = np.zeros(0, np.int64)
    return in_turns([*[none] * index, shuffled(options.domain, blocks, options.seed)]), []


def relabel(options: Options, documents: pd.DataFrame, name: str) -> pd.DataFrame:
    """The documents of the held-out set `name` (columns domain and group among them) with their parts as domains."""
    return documents.assign(domain=[f"{options.domain}_{part_of(options, group) + 1}" for group in documents["group"]])


def part_of(options: Options, group: str) -> int:
    """The part of a group, from 0; the same in every held-out set."""
    key = options.seed.to_bytes(8, "big")
    digest = hashlib.blake2b(group.encode(), digest_size=8, key=key, person=b"split_domain").digest()
    return int.from_bytes(digest, "big") % options.parts
