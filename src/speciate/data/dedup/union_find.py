"""What is connected with what, by pairs that come a portion at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse import csgraph

from speciate.data.arrays.scratch import CHUNK_ROWS

Indices = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.signedinteger[Any]]
"""Of documents, int32 where that is enough."""


def connected_components(count: int, pairs_P2: Indices) -> Indices:
    """int64 (count,): the number of the connected component of each of `count` nodes, in order of their first nodes."""
    ones = np.ones(len(pairs_P2), np.int8)
    graph = scipy.sparse.coo_array((ones, (pairs_P2[:, 0], pairs_P2[:, 1])), shape=(count, count))
    number, labels = csgraph.connected_components(graph, directed=False)
    firsts = np.empty(number, np.int64)
    firsts[labels[::-1]] = np.arange(count)[::-1]  # of several the last one stays: the smallest
    ranks = np.empty(number, np.int64)
    ranks[np.argsort(firsts)] = np.arange(number)
    found: Indices = ranks[labels]
    return found


class UnionFind:
    """Which documents are connected, so far: each knows an earlier one that it is connected to, the first itself."""

    def __init__(self, parent_D: Numbers) -> None:
        self.parent_D = parent_D
        """Is changed."""

    def find(self, documents_N: npt.NDArray[np.integer[Any]]) -> Numbers:
        """The first document that each is connected to, in the shape given."""
        found: Numbers = self.parent_D[documents_N]
        while not np.array_equal(found, higher := self.parent_D[found]):
            found = higher
        self.parent_D[documents_N] = found
        return found

    def union(self, pairs_P2: Indices) -> None:
        """Connects each pair."""
        nodes, ends = np.unique(self.find(pairs_P2), return_inverse=True)
        labels = connected_components(len(nodes), ends.reshape(-1, 2))
        _, firsts = np.unique(labels, return_index=True)
        self.parent_D[nodes] = nodes[firsts][labels]

    def number_components(self) -> Numbers:
        """Each document's component, numbered in the order of their first documents; -1 for a document alone.

        Takes the place of `above_D`, so that no more memory is needed; nothing can be connected after it.
        """
        count = len(self.parent_D)
        shared_D = np.zeros(count, bool)  # firsts that are not alone
        for start in range(0, count, CHUNK_ROWS):
            documents = np.arange(start, min(start + CHUNK_ROWS, count))
            firsts = self.find(documents)
            shared_D[firsts[firsts != documents]] = True
        given = 0
        for start in range(0, count, CHUNK_ROWS):
            above = self.parent_D[start : start + CHUNK_ROWS]
            first = above == np.arange(start, start + len(above))
            later, firsts = np.flatnonzero(~first), above[~first]
            shared = shared_D[start : start + CHUNK_ROWS][first]
            above[first] = np.where(shared, given + np.cumsum(shared) - 1, -1)
            above[later] = self.parent_D[firsts]  # a first comes before the others and has its number
            given += int(shared.sum())
        return self.parent_D
