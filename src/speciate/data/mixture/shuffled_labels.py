"""Negative control: shuffle the domain labels of the held-out groups of documents.

The training mixture is that of `truncate`, so the selectors may learn all that domains have to teach. But the labels
that the analysis sees have nothing to do with the text. It must find specialisation no more often than its significance
level allows.

Decision: labels are permuted among whole groups, because the analysis treats groups as exchangeable. Each label keeps
its number of groups. A group's name is prefixed with its true domain, so that groups of the same name in two domains
stay distinct.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import equal_shares
from speciate.data.permutation import permutation


class Options(MixtureOptions):
    """Options of truncation; the seed also draws the labels."""

    seed: int = Field(0, ge=0)
    """Seed of the blocks that are kept of larger domains, and of the permutation of labels."""
    warn_ratio: float = Field(1.5, ge=1)
    """Warn if the largest domain has more than this many times the tokens of the smallest."""

    relabels: ClassVar[bool] = True

    def labels(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """Return the study's domains: labels are permuted, not renamed."""
        return domains


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the training mixture of `truncate`, int32 (N, 2), domain index and row in its pack; and its warnings.

    Raises:
        ValueError: a domain has no block; names the domain.
    """
    return equal_shares(num_blocks, options.seed, options.warn_ratio)


def relabel(options: Options, documents: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the documents of the held-out set `name`, with columns domain and group, under permuted labels."""
    keys = pd.MultiIndex.from_frame(documents[["domain", "group"]])
    group_R, groups = pd.factorize(keys)
    label_G = groups.get_level_values(0).to_numpy()[permutation(len(groups), "labels", options.seed, name)]
    true_groups = documents["domain"] + ":" + documents["group"]
    return documents.assign(domain=label_G[group_R], group=true_groups)
