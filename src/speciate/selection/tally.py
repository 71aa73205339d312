"""The Tally: sums over Selections, never means, so that any statistic can be computed later and shards can be added.

Shape suffixes: N decisions, S slots, G groups (documents, token types, ...). Importing this file does not import torch.
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
    """Sums of choices; one decision spreads a total of 1 over its k slots."""
    probs_GS: Array
    """Sums of probabilities."""
    null_GS: Array
    """Sums of null probabilities."""
    divergence_G: Array
    """Sums of each decision's KL(probs || null), in nats."""
    entropy_G: Array
    """Sums of the entropies of each decision's probabilities, in nats."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def total(self) -> Tally:
        """Return the sum over groups, as a tally of one group."""
        return Tally(*(getattr(self, field.name).sum(axis=0, keepdims=True) for field in fields(self)))

    def commitment(self) -> Commitment:
        """Return the commitment over all groups together, split into drift and information."""
        return commitment(self.total())


@dataclass(frozen=True)
class Commitment:
    """How far a selector is from an unlearned one, in nats: `committed = drift + information`, all >= 0."""

    committed: float
    """E KL(p_n || q_n). Near 0: the selector is indifferent."""
    drift: float
    """KL(mean p || mean q): the same preference for every token. If it is most of the commitment: collapsed."""
    information: float
    """The rest: preferences that depend on the token. If it is most of the commitment: specialised."""


def commitment(tally: Tally) -> Commitment:
    """Apply the chain rule of KL to a tally of one group: E KL(p_n||q_n) = KL(mean p||mean q) + information.

    With a constant null, the information is the mutual information of decision and slot. With a null that differs by
    decision (an indexer behind a causal mask), it is the part of the commitment that no single preference explains.

    Raises:
        ValueError: there are no decisions, or more than one group.
    """
    if tally.decisions_G.shape != (1,) or tally.decisions_G[0] == 0:
        raise ValueError(f"commitment needs one group with decisions, not groups of {tally.decisions_G} decisions")
    count = tally.decisions_G[0]
    probs_S, null_S = tally.probs_GS[0] / count, tally.null_GS[0] / count
    committed = float(tally.divergence_G[0] / count)
    kept_S = probs_S > 0
    drift = float(np.sum(probs_S[kept_S] * np.log(probs_S[kept_S] / null_S[kept_S])))
    return Commitment(committed, drift, committed - drift)


def tally(selection: Selection, group_N: Tensor, num_groups: int) -> Tally:
    """Sum a Selection over the groups of its decisions, in float64.

    Args:
        selection: N decisions among S slots.
        group_N: the group of each decision, 0 <= group < num_groups; integer.
        num_groups: G.
    """
    probs_NS = selection.probs_NS.detach().double()
    null_NS = selection.null_NS.detach().double().expand_as(probs_NS)
    # xlogy gives 0 log 0 = 0; where the null is zero and the probability is not, the divergence is infinite
    entropy_N = -probs_NS.xlogy(probs_NS).sum(-1)
    divergence_N = -entropy_N - probs_NS.xlogy(null_NS).sum(-1)

    def sum_by_group(value: Tensor) -> Array:
        sums = value.new_zeros((num_groups, *value.shape[1:])).index_add_(0, group_N, value)
        result: Array = sums.cpu().numpy()
        return result

    return Tally(
        decisions_G=sum_by_group(entropy_N.new_ones(entropy_N.shape)),
        chosen_GS=sum_by_group(selection.chosen_NS.detach().double()),
        probs_GS=sum_by_group(probs_NS),
        null_GS=sum_by_group(null_NS.contiguous()),
        divergence_G=sum_by_group(divergence_N),
        entropy_G=sum_by_group(entropy_N),
    )
