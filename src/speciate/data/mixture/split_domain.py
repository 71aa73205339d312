"""Negative control: split a single domain into pseudo-domains that do not differ.

label of a document = <domain>_k,  k = 1 + BLAKE2b(seed, group) mod parts

Training uses all blocks of that domain and of no other. The pseudo-domains of the held-out documents are drawn by
group, so that near copies stay together. A selector that seems to tell them apart shows what the analysis finds where
there is nothing. A block may hold documents of several pseudo-domains, since a label belongs to a document.
"""

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import interleave, require_blocks, shuffled_blocks


class Options(MixtureOptions):
    """Options of the split of one domain."""

    domain: str
    """Domain to split; the study's other domains are left out."""
    parts: int = Field(3, ge=2)
    """Number of pseudo-domains."""
    seed: int = Field(0, ge=0)
    """Seed of the assignment of groups to pseudo-domains, and of the order of the blocks."""

    relabels: ClassVar[bool] = True

    def check_domains(self, domains: tuple[str, ...]) -> None:
        """Raise a ValueError if the study does not have the domain."""
        if self.domain not in domains:
            raise ValueError(f"mixture.domain: the study has no domain {self.domain}, only {', '.join(domains)}")

    def labels(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the pseudo-domains."""
        self.check_domains(domains)
        return tuple(f"{self.domain}_{part + 1}" for part in range(self.parts))


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the training mixture, all blocks of the domain, int32 (N, 2), domain index and row in its pack.

    Raises:
        ValueError: the study has no such domain, or it has no block.
    """
    options.check_domains(tuple(num_blocks))
    blocks = num_blocks[options.domain]
    require_blocks({options.domain: blocks})
    index = list(num_blocks).index(options.domain)
    no_rows = np.zeros(0, np.int64)
    return interleave([*[no_rows] * index, shuffled_blocks(options.domain, blocks, options.seed)]), []


def relabel(options: Options, documents: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the documents of the held-out set `name`, with columns domain and group, labelled by pseudo-domain."""
    return documents.assign(domain=[f"{options.domain}_{part_of(options, group) + 1}" for group in documents["group"]])


def part_of(options: Options, group: str) -> int:
    """Return the pseudo-domain of a group, counted from 0; it is the same in every held-out set."""
    key = options.seed.to_bytes(8, "big")
    digest = hashlib.blake2b(group.encode(), digest_size=8, key=key, person=b"split_domain").digest()
    return int.from_bytes(digest, "big") % options.parts
