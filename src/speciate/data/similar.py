"""Which documents are similar: candidates by locality-sensitive hashing, then compared by their shingles themselves.

Two documents whose signatures agree on a whole band of r rows are candidates; with b bands that happens with a chance
of 1 - (1 - J^r)^b (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4). Agreement alone is no proof: on
licence texts, joining all candidates removes three times as many documents as are similar, and judging by signatures
still takes one pair in nine wrongly. So each candidate is compared (data/signatures.py says how exactly), and no pair
below the threshold counts, however many candidates there are.

Equal texts count as one. In a band, the texts of one bucket are put into the order of their digests and each is
compared with the next 31: all pairs in all but huge buckets, and work that grows no faster than the bucket. Pairs that
are already known to be connected are not compared again. What is connected depends on the texts alone: not on shards,
not on how the bands are spread over jobs.
"""

import functools
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse import csgraph

from speciate.data import minhash
from speciate.data.arrays import distinct
from speciate.data.signatures import SKETCH, TEXT, Signed, Words, read_shards
from speciate.stages import Part

REACHES = (range(1, 2), range(2, 4), range(4, 8), range(8, 16), range(16, 32))
"""How far apart in its bucket a text may be from those that it is compared with, in turns."""
Indices = npt.NDArray[np.int64]


def read_scope(named: Sequence[str], parts: Sequence[Part], num_bands: int) -> "Scope":
    """The signed documents of every shard of every domain, in the order of `parts`.

    Args:
        named: `domain=folder`, where the folder holds the domain's shards' folders.
        parts: the domains.
        num_bands: bands of their signatures.

    Raises:
        ValueError: not each domain once, or files that `sign` did not write so.
    """
    folders = {name: pathlib.Path(folder) for name, _, folder in (each.partition("=") for each in named)}
    names = [part.name for part in parts]
    if sorted(folders) != sorted(names) or len(named) > len(names):
        raise ValueError(f"--signed: needs each of {', '.join(names)} once, as DOMAIN=FOLDER")
    shards = [each for part in parts for each in read_shards(part.name, folders[part.name], part.shards)]
    for each in shards:
        if len(each.bands_BD) != num_bands:
            where = folders[each.domain] / str(each.shard)
            raise ValueError(f"{where}: is signed with {len(each.bands_BD)} bands, not {num_bands}")
    return Scope(shards)


class Scope:
    """The documents that are compared with each other: all shards end to end, each known by its index there."""

    def __init__(self, shards: Sequence[Signed]) -> None:
        self.shards = shards
        self.starts: Indices = np.concatenate([[0], np.cumsum([len(shard) for shard in shards], dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @functools.cached_property
    def domains(self) -> list[str]:
        """The domains, in order."""
        return list(dict.fromkeys(shard.domain for shard in self.shards))

    @functools.cached_property
    def domains_D(self) -> Indices:
        """int64 (D,): each document's domain, by its place in `domains`."""
        numbers = [self.domains.index(shard.domain) for shard in self.shards]
        return np.repeat(np.array(numbers, np.int64), np.diff(self.starts))

    def place(self, document: int) -> tuple[Signed, int]:
        """The shard of a document, and its row there."""
        shard = int(np.searchsorted(self.starts, document, side="right")) - 1
        return self.shards[shard], document - int(self.starts[shard])

    def texts(self) -> Indices:
        """int64 (D,): the first document of the same text as each document."""
        digests_D2 = np.concatenate([np.zeros((0, 2), np.uint64), *(each.digests_D5[:, TEXT] for each in self.shards)])
        firsts, places_D = distinct(digests_D2)
        return firsts[places_D]

    def bucketed(self, band: int) -> tuple[Indices, Words]:
        """Documents of different text that agree with another one on a band, (M,), and its hash, (M,): sorted by it."""
        values_D = np.concatenate([np.zeros(0, np.uint64), *(shard.bands_BD[band] for shard in self.shards)])
        order = np.argsort(values_D, kind="stable")
        equal = values_D[order][1:] == values_D[order][:-1]
        members_M = order[np.append(equal, False) | np.append(False, equal)] if len(order) else order
        values_M, digests_M = values_D[members_M], self._digests_D[members_M]
        order = np.lexsort((digests_M, values_M))
        members_M, values_M, digests_M = members_M[order], values_M[order], digests_M[order]
        new = np.ones(len(members_M), bool)
        new[1:] = (values_M[1:] != values_M[:-1]) | (digests_M[1:] != digests_M[:-1])
        return members_M[new], values_M[new]

    @functools.cached_property
    def _digests_D(self) -> Words:
        return np.concatenate([np.zeros(0, np.uint64), *(shard.digests_D5[:, 0] for shard in self.shards)])

    def similarities(self, pairs_P2: Indices) -> npt.NDArray[np.float64]:
        """The Jaccard similarity of the shingles of each pair of documents, float64 (P,)."""
        shards_P2 = np.searchsorted(self.starts, pairs_P2, side="right") - 1
        rows_P2 = pairs_P2 - self.starts[shards_P2]
        return np.fromiter(
            (
                jaccard(self.shards[one].shingles(row), self.shards[other].shingles(other_row))
                for (one, other), (row, other_row) in zip(shards_P2.tolist(), rows_P2.tolist(), strict=True)
            ),
            np.float64,
            len(pairs_P2),
        )


def jaccard(one: minhash.Set, other: minhash.Set) -> float:
    """|A & B| / |A | B| of the sets that `one` and `other` are the smallest hashes of, sorted; 0 for two empty ones.

    A set of `SKETCH` hashes may go on beyond its last one; both are known as far as the smaller such last.
    """
    lasts = [each[-1] for each in (one, other) if len(each) >= SKETCH]
    if lasts:
        one, other = (each[: np.searchsorted(each, min(lasts), side="right")] for each in (one, other))
    both = np.concatenate([one, other])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / max(1, len(both) - shared)


def components(count: int, pairs_P2: Indices) -> Indices:
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


def similar_pairs(scope: Scope, bands: Iterable[int], similarity: float) -> Indices:
    """int64 (P, 2), sorted: pairs of a similarity of at least `similarity` that connect all that such pairs connect.

    Of candidates in `bands` only; the pairs are a part of those, since the connected are not compared again.
    """
    found = np.zeros((0, 2), np.int64)
    labels_D = np.arange(len(scope))
    refused = np.zeros(0, np.uint64)
    for band in bands:
        members_M, values_M = scope.bucketed(band)
        for reaches in REACHES:
            pairs = _neighbours(members_M, values_M, reaches)
            if not len(pairs):
                break
            pairs = pairs[labels_D[pairs[:, 0]] != labels_D[pairs[:, 1]]]
            pairs = pairs[~np.isin(_codes(pairs), refused)]
            alike = scope.similarities(pairs) >= similarity
            refused = np.union1d(refused, _codes(pairs[~alike]))
            if alike.any():
                found = np.concatenate([found, pairs[alike]])
                labels_D = components(len(scope), found)
    return np.unique(found, axis=0)


def _neighbours(members_M: Indices, values_M: Words, reaches: Iterable[int]) -> Indices:
    """int64 (P, 2): the members so many places apart, the smaller first, that have one value."""
    found = [np.zeros((0, 2), np.int64)]
    for reach in reaches:
        agree = values_M[reach:] == values_M[:-reach]
        found.append(np.stack([members_M[:-reach][agree], members_M[reach:][agree]], axis=1))
    return np.sort(np.concatenate(found), axis=1)


def _codes(pairs_P2: Indices) -> Words:
    assert not len(pairs_P2) or pairs_P2.max() < 1 << 32, "more documents than fit into 32 bits"
    codes: Words = (pairs_P2[:, 0].astype(np.uint64) << np.uint64(32)) | pairs_P2[:, 1].astype(np.uint64)
    return codes
