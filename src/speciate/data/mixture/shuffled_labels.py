"""Negative control: the domain of each held-out group of documents is another's, drawn at random.

Training is that of `truncate`, so the selectors may learn whatever domains have to teach them; but what the analysis is
told is the domain has nothing to do with the text. It must find no specialisation, no more often than its level says.

Decision: labels change hands among whole groups, each label keeping its number of groups, since groups are what the
analysis holds to be exchangeable. A group's name gets its true domain before it, so that two groups of one name in two
domains are never taken for one.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from speciate.config.contracts.data import MixtureOptions
from speciate.data.mixture.interleave import equal_parts
from speciate.data.permutation import permutation


class Options(MixtureOptions):
    """The options of truncation, and the seed also draws the labels."""

    seed: int = Field(0, ge=0)
    """Draws which blocks of the larger domains are kept, and who gets which label."""
    warn_ratio: float = Field(1.5, ge=1)
    """Warn where the largest domain has more than this times the tokens of the smallest."""

    relabels: ClassVar[bool] = True

    def labels(self, domains: tuple[str, ...]) -> tuple[str, ...]:
        """The names are the study's; only who has them is not."""
        return domains


def mix(options: Options, num_blocks: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Which blocks the training mixture has: those of `truncate`, int32 (N, 2), and its warnings.

    Raises:
        ValueError: a domain has no block; names it.
    """
    return equal_parts(num_blocks, options.seed, options.warn_ratio)


def relabel(options: Options, documents: pd.DataFrame, name: str) -> pd.DataFrame:
    """The documents of the held-out set `name` (columns domain and group among them) with the labels shuffled."""
    keys = pd.MultiIndex.from_frame(documents[["domain", "group"]])
    group_R, groups = pd.factorize(keys)
    label_G = groups.get_level_values(0).to_numpy()[permutation(len(groups), "labels", options.seed, name)]
    true = documents["domain"] + ":" + documents["group"]
    return documents.assign(domain=label_G[group_R], group=true)
