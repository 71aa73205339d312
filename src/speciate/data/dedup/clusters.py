"""Decide which documents are dropped as duplicates, and which document is kept in place of each.

A cluster is a connected component of documents whose texts are equal or similar (data/dedup/candidates.py), whatever
their shards. It tells what belongs together, not what is dropped: in a chain a ~ b ~ c the ends may be different texts.
Keeping one document of each component, as is usual, loses them: of 220 licence texts dropped in this way, 11 are
similar to none that is kept. So the documents of a cluster are visited in order, and one is dropped only if it equals,
or is similar to, a document that is kept. Every dropped text has a counterpart among those kept. Where all of a
domain's duplicates may be dropped, no two documents left in a cluster are similar.

The order is that of the domains in the study file, then that of the sorted documents (data/sorted_documents.py). It
follows from the texts, so which document is kept does not depend on files, rows or shards.

A domain's policy says which documents may be dropped: `keep` none, `exact` those equal to a kept document, `near` also
those similar to one. The decisions are made in rounds over many clusters at once: the first undecided document of each
cluster stays, and its duplicates are dropped.

Memory: 14 bytes a document (three numbers of 4 bytes, a policy, a mark), one group of clusters at a time (at least the
whole of the largest), and 17 bytes a cluster.
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
"""Pairs of documents (P, 2) -> which of them are similar (P,)."""


@dataclass(frozen=True)
class Clusters:
    """The clusters of a scope's documents, and which documents are dropped. Documents are indices in the scope."""

    clusters_D: Numbers
    """The cluster of each document, numbered in the order of their first documents; -1 for a document without
    duplicates."""
    texts_D: Numbers
    """The first document of the same text."""
    replacement_D: Numbers
    """For a dropped document the one that is kept in its place, else -1."""

    @property
    def dropped(self) -> Indices:
        """The dropped documents, in order."""
        return np.flatnonzero(self.replacement_D >= 0)

    def is_exact(self, dropped_N: Indices) -> npt.NDArray[np.bool_]:
        """Tell whether each dropped document equals the one kept in its place, bool (N,)."""
        is_equal_N: npt.NDArray[np.bool_] = self.texts_D[dropped_N] == self.texts_D[self.replacement_D[dropped_N]]
        return is_equal_N

    def members(self) -> Iterator[tuple[Indices, Numbers]]:
        """Yield the documents that are in clusters in order, chunk by chunk, each chunk with their clusters."""
        return _iterate_members(self.clusters_D)

    def sizes(self) -> Indices:
        """Return the number of documents in each cluster, int64 (C,)."""
        return _cluster_sizes(self.clusters_D)

    def has_one_text(self) -> npt.NDArray[np.bool_]:
        """Tell whether all texts of each cluster are equal, bool (C,)."""
        count = int(self.clusters_D.max(initial=-1)) + 1
        firsts_C, has_one_C = np.full(count, -1, self.texts_D.dtype), np.ones(count, bool)
        for documents, clusters in self.members():
            present, first_indices = np.unique(clusters, return_index=True)
            is_new = firsts_C[present] < 0
            firsts_C[present[is_new]] = documents[first_indices[is_new]]
            has_one_C[clusters[self.texts_D[documents] != firsts_C[clusters]]] = False
        return has_one_C

    def domain_membership(self, domains_of: Callable[[Indices], Indices], count: int) -> npt.NDArray[np.bool_]:
        """Tell whether each cluster has documents of each of `count` domains, bool (C, M).

        Args:
            domains_of: documents (N,) -> indices of their domains (N,).
            count: M, the number of domains.
        """
        membership_CM = np.zeros((int(self.clusters_D.max(initial=-1)) + 1, count), bool)
        for documents, clusters in self.members():
            membership_CM[clusters, domains_of(documents)] = True
        return membership_CM


def cluster_documents(
    texts_D: Numbers, pairs: Iterable[Indices], policies_D: npt.NDArray[np.int8], similar: SimilarityTest
) -> Clusters:
    """Cluster documents, and decide which are dropped.

    Args:
        texts_D: the first document of the same text.
        pairs: pairs of similar documents (P, 2), chunk by chunk.
        policies_D: KEEP, EXACT or NEAR for each document.
        similar: tells which pairs are similar; called for documents that a kept document of their cluster may replace.
    """
    components = UnionFind(texts_D.copy())
    for pairs_P2 in pairs:
        components.union(pairs_P2)
    clusters_D = components.number_components()
    replacement_D = np.full_like(texts_D, -1)
    for members in _iterate_cluster_groups(clusters_D):
        first, last = clusters_D[members[[0, -1]]].tolist()
        while len(members):
            may_drop_similar = np.zeros(last - first + 1, bool)  # clusters in which similar texts may still be dropped
            may_drop_similar[clusters_D[members[policies_D[members] == NEAR]] - first] = True
            is_passive = ~may_drop_similar[clusters_D[members] - first]
            _drop_equal_texts(members[is_passive], texts_D, policies_D, replacement_D)
            members = _keep_first_members(
                members[~is_passive], clusters_D, texts_D, policies_D, replacement_D=replacement_D, similar=similar
            )
    return Clusters(clusters_D, texts_D, replacement_D)


def _iterate_members(clusters_D: Numbers) -> Iterator[tuple[Indices, Numbers]]:
    for start in range(0, len(clusters_D), CHUNK_ROWS):
        clusters = clusters_D[start : start + CHUNK_ROWS]
        in_cluster = np.flatnonzero(clusters >= 0)
        yield start + in_cluster, clusters[in_cluster]


def _cluster_sizes(clusters_D: Numbers) -> Indices:
    sizes_C = np.zeros(int(clusters_D.max(initial=-1)) + 1, np.int64)
    for _, clusters in _iterate_members(clusters_D):
        present, counts = np.unique(clusters, return_counts=True)
        sizes_C[present] += counts
    return sizes_C


def _iterate_cluster_groups(clusters_D: Numbers) -> Iterator[Indices]:
    """Yield the members of clusters, cluster by cluster, in order; no cluster is split between two groups."""
    sizes_C = _cluster_sizes(clusters_D)
    total = int(sizes_C.sum())
    partitions = Partitions(total, [("cluster", np.int64), ("document", np.int64)])
    partition_C = partitions.partitions_by_number(np.cumsum(sizes_C) - sizes_C, total).astype(np.int16)
    del sizes_C
    for documents, clusters in _iterate_members(clusters_D):
        rows = np.empty(len(documents), partitions.dtype)
        rows["cluster"], rows["document"] = clusters, documents
        partitions.add(partition_C[clusters], rows)
    for rows in partitions:
        if len(rows):
            yield rows["document"][np.argsort(rows["cluster"], kind="stable")]


def _drop_equal_texts(
    members: Indices, texts_D: Numbers, policies_D: npt.NDArray[np.int8], replacement_D: Numbers
) -> None:
    """Drop, in `replacement_D`, what equals an earlier document of `members`."""
    order = members[np.lexsort((members, texts_D[members]))]
    leaders = _first_of_each_key(order, texts_D)
    is_dropped = (leaders != order) & (policies_D[order] != KEEP)
    replacement_D[order[is_dropped]] = leaders[is_dropped]


def _keep_first_members(
    members: Indices,
    clusters_D: Numbers,
    texts_D: Numbers,
    policies_D: npt.NDArray[np.int8],
    *,
    replacement_D: Numbers,
    similar: SimilarityTest,
) -> Indices:
    """Keep the first of each cluster's `members`, drop its duplicates in `replacement_D`, and return the undecided."""
    leaders = _first_of_each_key(members, clusters_D)
    is_equal = texts_D[members] == texts_D[leaders]
    is_similar = np.zeros(len(members), bool)
    candidates = np.flatnonzero(~is_equal & (policies_D[members] == NEAR))
    # documents of one text get one answer
    pairs, answers = np.unique(
        np.stack([leaders[candidates], texts_D[members[candidates]]], axis=1), axis=0, return_inverse=True
    )
    is_similar[candidates] = similar(pairs)[answers.reshape(-1)]
    is_dropped = is_similar | (is_equal & (leaders != members) & (policies_D[members] != KEEP))
    replacement_D[members[is_dropped]] = leaders[is_dropped]
    undecided: Indices = members[~is_equal & ~is_similar]
    return undecided


def _first_of_each_key(members: Indices, keys_D: Numbers) -> Indices:
    """Return, for each member, the first member of the same key; members of one key are adjacent."""
    is_first = np.ones(len(members), bool)
    is_first[1:] = keys_D[members][1:] != keys_D[members][:-1]
    firsts: Indices = members[is_first][np.cumsum(is_first) - 1]
    return firsts
