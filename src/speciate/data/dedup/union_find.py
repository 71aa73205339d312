"""Union-find over documents: connected components from pairs that come a chunk at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse import csgraph

from speciate.data.arrays.scratch import CHUNK_ROWS

Indices = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.signedinteger[Any]]
"""Indices of documents or clusters: int32 where that is enough."""


def connected_components(count: int, pairs_P2: Indices) -> Indices:
    """Return the component of each of `count` nodes, int64 (count,), numbered in the order of their first nodes."""
    ones = np.ones(len(pairs_P2), np.int8)
    graph = scipy.sparse.coo_array((ones, (pairs_P2[:, 0], pairs_P2[:, 1])), shape=(count, count))
    number, labels = csgraph.connected_components(graph, directed=False)
    firsts = np.empty(number, np.int64)
    firsts[labels[::-1]] = np.arange(count)[::-1]  # of several assignments the last one stays: the smallest
    ranks = np.empty(number, np.int64)
    ranks[np.argsort(firsts)] = np.arange(number)
    components: Indices = ranks[labels]
    return components


class UnionFind:
    """The components so far: each document has an earlier one of its component as parent, the first has itself."""

    def __init__(self, parent_D: Numbers) -> None:
        self.parent_D = parent_D
        """Changed in place."""

    def find(self, documents_N: npt.NDArray[np.integer[Any]]) -> Numbers:
        """Return the first document of each document's component, in the shape given."""
        roots: Numbers = self.parent_D[documents_N]
        while not np.array_equal(roots, parents := self.parent_D[roots]):
            roots = parents
        self.parent_D[documents_N] = roots
        return roots

    def union(self, pairs_P2: Indices) -> None:
        """Connect the two documents of each pair."""
        nodes, ends = np.unique(self.find(pairs_P2), return_inverse=True)
        labels = connected_components(len(nodes), ends.reshape(-1, 2))
        _, firsts = np.unique(labels, return_index=True)
        self.parent_D[nodes] = nodes[firsts][labels]

    def number_components(self) -> Numbers:
        """Return each document's component, numbered in the order of their first documents; -1 for a document alone.

        The result overwrites `parent_D`, so it needs no more memory; nothing can be connected afterwards.
        """
        count = len(self.parent_D)
        shared_D = np.zeros(count, bool)  # roots of components of several documents
        for start in range(0, count, CHUNK_ROWS):
            documents = np.arange(start, min(start + CHUNK_ROWS, count))
            firsts = self.find(documents)
            shared_D[firsts[firsts != documents]] = True
        num_components = 0
        for start in range(0, count, CHUNK_ROWS):
            parents = self.parent_D[start : start + CHUNK_ROWS]
            is_root = parents == np.arange(start, start + len(parents))
            others, firsts = np.flatnonzero(~is_root), parents[~is_root]
            is_shared = shared_D[start : start + CHUNK_ROWS][is_root]
            parents[is_root] = np.where(is_shared, num_components + np.cumsum(is_shared) - 1, -1)
            parents[others] = self.parent_D[firsts]  # a root comes before the others and already has its number
            num_components += int(is_shared.sum())
        return self.parent_D
