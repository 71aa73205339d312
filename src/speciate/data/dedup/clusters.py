"""Which documents are dropped as duplicates, and for which that is kept.

A cluster is a connected component of documents whose texts are equal or similar (data/dedup/candidates.py), whatever the shards.
It says what belongs together, not what is lost: in a chain a ~ b ~ c the ends may be different texts. Keeping one
document of each component, as is usual, loses them: of 220 licence texts so dropped, 11 are similar to none that is
kept. So a cluster is gone through in the order of its documents (domain, shard, row), and one is dropped only where it
equals, or is similar to, a document that is kept. Everything lost has its like in what is left, and where all of a
domain's duplicates may go, no two that are left in a cluster are similar.

A domain's policy says what it may lose: `keep` nothing, `exact` what equals a kept document, `near` what is similar
too. All in rounds over many clusters at once: the first undecided document of each stays, and its duplicates go.

Memory: 14 bytes a document (three numbers of 4 bytes, a policy, a mark), a part of the clusters at a time (the whole of
the largest), and 17 bytes a cluster.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.scratch import CHUNK_ROWS, Partitions
from speciate.data.dedup.union_find import Indices, Numbers, UnionFind

POLICIES = ("keep", "exact", "near")
KEEP, EXACT, NEAR = range(len(POLICIES))
SimilarityTest = Callable[[Indices], npt.NDArray[np.bool_]]
"""Pairs of documents (P, 2) -> which are similar (P,)."""


@dataclass(frozen=True)
class Clusters:
    """The clusters of a scope's documents and what is dropped of them. Documents are indices in the scope."""

    clusters_D: Numbers
    """The cluster of each document, from 0 in the order of their first documents; -1 for a document alone."""
    texts_D: Numbers
    """The first document of the same text."""
    replacement_D: Numbers
    """For a dropped document the one that is kept in its place, else -1."""

    @property
    def dropped(self) -> Indices:
        """The dropped documents, in order."""
        return np.flatnonzero(self.replacement_D >= 0)

    def is_exact(self, dropped_N: Indices) -> npt.NDArray[np.bool_]:
        """Whether dropped documents are dropped for one of equal text."""
        found: npt.NDArray[np.bool_] = self.texts_D[dropped_N] == self.texts_D[self.replacement_D[dropped_N]]
        return found

    def members(self) -> Iterator[tuple[Indices, Numbers]]:
        """The documents that are in clusters, portion by portion in order, and which clusters."""
        return _iterate_members(self.clusters_D)

    def sizes(self) -> Indices:
        """How many documents each cluster has, int64 (C,)."""
        return _cluster_sizes(self.clusters_D)

    def has_one_text(self) -> npt.NDArray[np.bool_]:
        """Whether all of a cluster's texts are equal, bool (C,)."""
        count = int(self.clusters_D.max(initial=-1)) + 1
        firsts_C, one_C = np.full(count, -1, self.texts_D.dtype), np.ones(count, bool)
        for documents, clusters in self.members():
            found, places = np.unique(clusters, return_index=True)
            new = firsts_C[found] < 0
            firsts_C[found[new]] = documents[places[new]]
            one_C[clusters[self.texts_D[documents] != firsts_C[clusters]]] = False
        return one_C

    def domain_membership(self, domains_of: Callable[[Indices], Indices], count: int) -> npt.NDArray[np.bool_]:
        """bool (C, M): whether a cluster has documents of each of `count` domains, which `domains_of` documents are."""
        found = np.zeros((int(self.clusters_D.max(initial=-1)) + 1, count), bool)
        for documents, clusters in self.members():
            found[clusters, domains_of(documents)] = True
        return found


def cluster_documents(texts_D: Numbers, pairs: Iterable[Indices], policies_D: npt.NDArray[np.int8], similar: SimilarityTest) -> Clusters:
    """Clusters documents and decides which are dropped.

    Args:
        texts_D: the first document of the same text.
        pairs: pairs of similar documents (P, 2), portion by portion.
        policies_D: KEEP, EXACT or NEAR for each document.
        similar: asked for those that a kept document of the same cluster may replace.
    """
    connected = UnionFind(texts_D.copy())
    for pairs_P2 in pairs:
        connected.union(pairs_P2)
    clusters_D = connected.number_components()
    replacement_D = np.full_like(texts_D, -1)
    for members in _iterate_cluster_groups(clusters_D):
        first, last = clusters_D[members[[0, -1]]].tolist()
        while len(members):
            hopeful = np.zeros(last - first + 1, bool)  # clusters in which similar texts may still go
            hopeful[clusters_D[members[policies_D[members] == NEAR]] - first] = True
            passive = ~hopeful[clusters_D[members] - first]
            _drop_equal_texts(members[passive], texts_D, policies_D, replacement_D)
            members = _keep_first_members(members[~passive], clusters_D, texts_D, policies_D, replacement_D, similar)
    return Clusters(clusters_D, texts_D, replacement_D)


def _iterate_members(clusters_D: Numbers) -> Iterator[tuple[Indices, Numbers]]:
    for start in range(0, len(clusters_D), CHUNK_ROWS):
        clusters = clusters_D[start : start + CHUNK_ROWS]
        there = np.flatnonzero(clusters >= 0)
        yield start + there, clusters[there]


def _cluster_sizes(clusters_D: Numbers) -> Indices:
    sizes_C = np.zeros(int(clusters_D.max(initial=-1)) + 1, np.int64)
    for _, clusters in _iterate_members(clusters_D):
        found, counts = np.unique(clusters, return_counts=True)
        sizes_C[found] += counts
    return sizes_C


def _iterate_cluster_groups(clusters_D: Numbers) -> Iterator[Indices]:
    """The members of clusters, cluster by cluster, in order; no cluster is in two parts."""
    sizes_C = _cluster_sizes(clusters_D)
    total = int(sizes_C.sum())
    parts = Partitions(total, [("cluster", np.int64), ("document", np.int64)])
    part_C = parts.partitions_by_number(np.cumsum(sizes_C) - sizes_C, total).astype(np.int16)
    del sizes_C
    for documents, clusters in _iterate_members(clusters_D):
        rows = np.empty(len(documents), parts.dtype)
        rows["cluster"], rows["document"] = clusters, documents
        parts.add(part_C[clusters], rows)
    for rows in parts:
        if len(rows):
            yield rows["document"][np.argsort(rows["cluster"], kind="stable")]


def _drop_equal_texts(members: Indices, texts_D: Numbers, policies_D: npt.NDArray[np.int8], replacement_D: Numbers) -> None:
    """Drops, in `of_D`, what equals an earlier one of `members`."""
    order = members[np.lexsort((members, texts_D[members]))]
    leaders = _first_of_each_key(order, texts_D)
    lost = (leaders != order) & (policies_D[order] != KEEP)
    replacement_D[order[lost]] = leaders[lost]


def _keep_first_members(
    members: Indices,
    clusters_D: Numbers,
    texts_D: Numbers,
    policies_D: npt.NDArray[np.int8],
    replacement_D: Numbers,
    similar: SimilarityTest,
) -> Indices:
    """Keeps the first of each cluster's `members`, drops its duplicates in `of_D`; returns the still undecided."""
    leaders = _first_of_each_key(members, clusters_D)
    equal = texts_D[members] == texts_D[leaders]
    alike = np.zeros(len(members), bool)
    asked = np.flatnonzero(~equal & (policies_D[members] == NEAR))
    # documents of one text get one answer
    pairs, answers = np.unique(np.stack([leaders[asked], texts_D[members[asked]]], axis=1), axis=0, return_inverse=True)
    alike[asked] = similar(pairs)[answers.reshape(-1)]
    lost = alike | (equal & (leaders != members) & (policies_D[members] != KEEP))
    replacement_D[members[lost]] = leaders[lost]
    undecided: Indices = members[~equal & ~alike]
    return undecided


def _first_of_each_key(members: Indices, keys_D: Numbers) -> Indices:
    """The first member of the same key, for each member; members of one key stand together."""
    first = np.ones(len(members), bool)
    first[1:] = keys_D[members][1:] != keys_D[members][:-1]
    found: Indices = members[first][np.cumsum(first) - 1]
    return found
