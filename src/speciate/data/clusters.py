"""Which documents are dropped as duplicates, and for which that is kept.

A cluster is a connected component of documents whose texts are equal or similar (data/similar.py), whatever the shards.
It says what belongs together, not what is lost: in a chain a ~ b ~ c the ends may be different texts. Keeping one
document of each component, as is usual, loses them: of 220 licence texts so dropped, 11 are similar to none that is
kept. So a cluster is gone through in the order of its documents (domain, shard, row), and one is dropped only where it
equals, or is similar to, a document that is kept. Everything lost has its like in what is left, and where all of a
domain's duplicates may go, no two that are left in a cluster are similar.

A domain's policy says what it may lose: `keep` nothing, `exact` what equals a kept document, `near` what is similar
too. All in rounds over all clusters at once: the first undecided document of each stays, and its duplicates go.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speciate.data.similar import Indices, components

POLICIES = ("keep", "exact", "near")
KEEP, EXACT, NEAR = range(len(POLICIES))
Similar = Callable[[Indices], npt.NDArray[np.bool_]]
"""Pairs of documents (P, 2) -> which are similar (P,)."""


@dataclass(frozen=True)
class Clusters:
    """The clusters of a scope's documents and what is dropped of them. Documents are indices in the scope."""

    clusters_D: Indices
    """The cluster of each document, from 0 in the order of their first documents; -1 for a document alone."""
    texts_D: Indices
    """The first document of the same text."""
    of_D: Indices
    """For a dropped document the one that is kept in its place, else -1."""

    @property
    def dropped(self) -> Indices:
        """The dropped documents, in order."""
        return np.flatnonzero(self.of_D >= 0)

    @property
    def exact_D(self) -> npt.NDArray[np.bool_]:
        """Whether a document is dropped for one of equal text."""
        found: npt.NDArray[np.bool_] = (self.of_D >= 0) & (self.texts_D == self.texts_D[self.of_D])
        return found

    @property
    def sizes_C(self) -> Indices:
        """How many documents each cluster has."""
        return np.bincount(self.clusters_D[self.clusters_D >= 0])

    @property
    def one_text_C(self) -> npt.NDArray[np.bool_]:
        """Whether all of a cluster's texts are equal."""
        members = np.flatnonzero(self.clusters_D >= 0)
        clusters = self.clusters_D[members]
        texts = np.unique(np.stack([clusters, self.texts_D[members]], axis=1), axis=0)
        found: npt.NDArray[np.bool_] = np.bincount(texts[:, 0], minlength=len(self.sizes_C)) == 1
        return found

    def holds(self, domains_D: Indices, count: int) -> npt.NDArray[np.bool_]:
        """bool (C, M): whether a cluster has documents of each of `count` domains, numbered in `domains_D`."""
        found = np.zeros((len(self.sizes_C), count), bool)
        members = np.flatnonzero(self.clusters_D >= 0)
        found[self.clusters_D[members], domains_D[members]] = True
        return found


def cluster(texts_D: Indices, pairs_P2: Indices, policies_D: npt.NDArray[np.int8], similar: Similar) -> Clusters:
    """Clusters documents and decides which are dropped.

    Args:
        texts_D: the first document of the same text.
        pairs_P2: pairs of similar documents.
        policies_D: KEEP, EXACT or NEAR for each document.
        similar: asked for those that a kept document of the same cluster may replace.
    """
    count = len(texts_D)
    equal_D2 = np.stack([texts_D, np.arange(count)], axis=1)
    labels_D = components(count, np.concatenate([equal_D2, pairs_P2]))
    sizes = np.bincount(labels_D, minlength=1)
    numbers = np.where(sizes > 1, np.cumsum(sizes > 1) - 1, -1)  # components come in the order of their first documents
    clusters_D = numbers[labels_D]
    members = np.flatnonzero(clusters_D >= 0)
    members = members[np.argsort(clusters_D[members], kind="stable")]
    of_D = np.full(count, -1, np.int64)
    while len(members):
        hopeful = np.zeros(len(sizes), bool)  # clusters in which similar texts may still go
        hopeful[clusters_D[members[policies_D[members] == NEAR]]] = True
        passive = ~hopeful[clusters_D[members]]
        _drop_equal(members[passive], texts_D, policies_D, of_D)
        members = _round(members[~passive], clusters_D, texts_D, policies_D, of_D, similar)
    return Clusters(clusters_D, texts_D, of_D)


def _drop_equal(members: Indices, texts_D: Indices, policies_D: npt.NDArray[np.int8], of_D: Indices) -> None:
    """Drops, in `of_D`, what equals an earlier one of `members`."""
    order = members[np.lexsort((members, texts_D[members]))]
    leaders = _leaders(order, texts_D)
    lost = (leaders != order) & (policies_D[order] != KEEP)
    of_D[order[lost]] = leaders[lost]


def _round(
    members: Indices,
    clusters_D: Indices,
    texts_D: Indices,
    policies_D: npt.NDArray[np.int8],
    of_D: Indices,
    similar: Similar,
) -> Indices:
    """Keeps the first of each cluster's `members`, drops its duplicates in `of_D`; returns the still undecided."""
    leaders = _leaders(members, clusters_D)
    equal = texts_D[members] == texts_D[leaders]
    alike = np.zeros(len(members), bool)
    asked = np.flatnonzero(~equal & (policies_D[members] == NEAR))
    # documents of one text get one answer
    pairs, answers = np.unique(np.stack([leaders[asked], texts_D[members[asked]]], axis=1), axis=0, return_inverse=True)
    alike[asked] = similar(pairs)[answers.reshape(-1)]
    lost = alike | (equal & (leaders != members) & (policies_D[members] != KEEP))
    of_D[members[lost]] = leaders[lost]
    undecided: Indices = members[~equal & ~alike]
    return undecided


def _leaders(members: Indices, keys_D: Indices) -> Indices:
    """The first member of the same key, for each member; members of one key stand together."""
    first = np.ones(len(members), bool)
    first[1:] = keys_D[members][1:] != keys_D[members][:-1]
    found: Indices = members[first][np.cumsum(first) - 1]
    return found
