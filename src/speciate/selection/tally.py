"""Additive sums of Selections, never means: any statistic can still be computed from them, and shards just add.

Shape suffixes: N decisions, S slots, G groups (documents, token types, ...). This file needs no torch to be imported.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from speciate.selection.selection import Selection

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums over the decisions of each group. Two tallies of the same selector and groups add by `+`."""

    decisions_G: Array
    """Number of decisions."""
    chosen_GS: Array
    """Choices; one decision spreads a total of 1 over its k slots."""
    probs_GS: Array
    """Probabilities."""
    null_GS: Array
    """Null probabilities."""
    divergence_G: Array
    """KL(probs || null) of each decision, in nats."""
    entropy_G: Array
    """Entropy of each decision's probabilities, in nats."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def total(self) -> Tally:
        """All groups as one."""
        return Tally(*(getattr(self, field.name).sum(axis=0, keepdims=True) for field in fields(self)))

    def commitment(self) -> Commitment:
        """Commitment over all groups together, split into drift and information."""
        return commitment(self.total())


@dataclass(frozen=True)
class Commitment:
    """How far a selector is from an unlearned one, in nats: `committed = drift + information`, all >= 0."""

    committed: float
    """E KL(p_n || q_n). Near 0: the selector is indifferent."""
    drift: float
    """KL(mean p || mean q): the same preference for every token. Most of it: collapsed."""
    information: float
    """The rest: preferences that depend on the token. Most of it: specialised."""


def commitment(tally: Tally) -> Commitment:
    """The chain rule of KL on a tally of one group: E KL(p_n||q_n) = KL(mean p||mean q) + information.

    With a constant null the information is the mutual information of decision and slot; with one that differs by
    decision (an indexer behind a causal mask) it is the part of the commitment that no single preference explains.

    Raises:
        ValueError: no decisions, or more than one group.
    """
    if tally.decisions_G.shape != (1,) or tally.decisions_G[0] == 0:
        raise ValueError(f"commitment needs one group with decisions, got decisions {tally.decisions_G}")
    count = tally.decisions_G[0]
    probs_S, null_S = tally.probs_GS[0] / count, tally.null_GS[0] / count
    committed = float(tally.divergence_G[0] / count)
    kept_S = probs_S > 0
    drift = float(np.sum(probs_S[kept_S] * np.log(probs_S[kept_S] / null_S[kept_S])))
    return Commitment(committed, drift, committed - drift)


def tally(selection: Selection, group_N: Tensor, num_groups: int) -> Tally:
    """Sums a Selection over the groups of its decisions, in float64.

    Args:
        selection: N decisions among S slots.
        group_N: the group of each decision, 0 <= group < num_groups; integer.
        num_groups: G.
    """
    probs_NS = selection.probs_NS.detach().double()
    null_NS = selection.null_NS.detach().double().expand_as(probs_NS)
    # xlogy has the limit 0 log 0 = 0; a null of zero where the probability is not is an infinite divergence
    entropy_N = -probs_NS.xlogy(probs_NS).sum(-1)
    divergence_N = -entropy_N - probs_NS.xlogy(null_NS).sum(-1)

    def summed(value: Tensor) -> Array:
        sums = value.new_zeros((num_groups, *value.shape[1:])).index_add_(0, group_N, value)
        result: Array = sums.cpu().numpy()
        return result

    return Tally(
        decisions_G=summed(entropy_N.new_ones(entropy_N.shape)),
        chosen_GS=summed(selection.chosen_NS.detach().double()),
        probs_GS=summed(probs_NS),
        null_GS=summed(null_NS.contiguous()),
        divergence_G=summed(divergence_N),
        entropy_G=summed(entropy_N),
    )
