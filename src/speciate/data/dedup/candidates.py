"""Which documents are similar: candidates by locality-sensitive hashing, then compared by their shingles themselves.

Two documents whose signatures agree on a whole band of r rows are candidates; with b bands that happens with a chance
of 1 - (1 - J^r)^b (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4). Agreement alone is no proof: on
licence texts, joining all candidates removes three times as many documents as are similar, and judging by signatures
still takes one pair in nine wrongly. So each candidate is compared (data/dedup/signatures.py says how exactly), and no pair
below the threshold counts, however many candidates there are.

Equal texts count as one. In a band, the texts of one bucket are put into the order of their digests and each is
compared with the next 31: all pairs in all but huge buckets, and work that grows no faster than the bucket. Pairs that
are already known to be connected are not compared again. What is connected depends on the texts alone: not on shards,
not on how the bands are spread over jobs.

Memory: four bytes a document (which it is connected to), a part of a band at a time (data/arrays/scratch.py), and the pages of
the few shingles that are compared. What a band's buckets hold, and the pairs that are found, lie in scratch files.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.config.data import ComparedDomain
from speciate.data.arrays.npy import chunks, distinct, release_pages
from speciate.data.arrays.scratch import PORTION, Parts, Scratch, index_type
from speciate.data.dedup import minhash
from speciate.data.dedup.shingles import mix
from speciate.data.dedup.signatures import SKETCH, TEXT, Signed, Words, read_shards
from speciate.data.dedup.union_find import UnionFind

REACHES = (range(1, 2), range(2, 4), range(4, 8), range(8, 16), range(16, 32))
"""How far apart in its bucket a text may be from those that it is compared with, in turns."""
MEMBER = np.dtype([("value", np.uint64), ("digest", np.uint64), ("document", np.int64)])
"""A document in a bucket of a band: the band's hash, and the first half of its text's digest."""
COMPARED = 64
"""Pairs that are compared before the pages of their shingles are given back."""
REMEMBERED = 1 << 20
"""Pairs that are known not to be similar, about."""
Indices = npt.NDArray[np.int64]


def read_scope(folders: Mapping[str, pathlib.Path], parts: Sequence[ComparedDomain], num_bands: int) -> "Scope":
    """The signed documents of every shard of every domain, in the order of `parts`.

    Args:
        folders: for each domain the folder of its shards' folders.
        parts: the domains.
        num_bands: bands of their signatures.

    Raises:
        ValueError: files that `sign` did not write so.
    """
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

    def domains_of(self, documents_N: npt.NDArray[np.integer[Any]]) -> Indices:
        """int64 (N,): documents' domains, by their places in `domains`."""
        numbers = np.array([self.domains.index(shard.domain) for shard in self.shards], np.int64)
        return numbers[np.searchsorted(self.starts, documents_N, side="right") - 1]

    def place(self, document: int) -> tuple[Signed, int]:
        """The shard of a document, and its row there."""
        shard = int(np.searchsorted(self.starts, document, side="right")) - 1
        return self.shards[shard], document - int(self.starts[shard])

    def texts(self) -> npt.NDArray[np.signedinteger[Any]]:
        """int (D,): the first document of the same text as each document."""
        firsts_D = np.zeros(len(self), index_type(len(self)))
        parts = Parts(len(self), [("digest", np.uint64, 2), ("document", np.int64)])
        for start, digests_N2 in self._columns(lambda shard: shard.digests_D5[:, TEXT]):
            rows = np.empty(len(digests_N2), parts.dtype)
            rows["digest"], rows["document"] = digests_N2, np.arange(start, start + len(rows))
            parts.put(parts.by_hash(digests_N2[:, 0]), rows)
        for rows in parts:
            firsts, places = distinct(rows["digest"])
            firsts_D[rows["document"]] = rows["document"][firsts][places]
        return firsts_D

    def bucketed(self, band: int) -> Scratch:
        """The `MEMBER`s of a band: documents of different text that agree with another one on it, sorted by its hash.

        Those of one hash by their digests.
        """
        parts = Parts(len(self), MEMBER)
        texts = self._columns(lambda shard: shard.digests_D5[:, 0])
        for (start, values_N), (_, digests_N) in zip(
            self._columns(lambda shard: shard.bands_BD[band]), texts, strict=True
        ):
            rows = np.empty(len(values_N), MEMBER)
            rows["value"], rows["digest"] = values_N, digests_N
            rows["document"] = np.arange(start, start + len(rows))
            parts.put(parts.by_hash(values_N), rows)
        members = Scratch(MEMBER)
        for rows in parts:
            values_N = rows["value"]
            order = np.lexsort((rows["digest"], values_N))
            values_N = values_N[order]
            equal = values_N[1:] == values_N[:-1]
            rows = rows[order[np.append(equal, False) | np.append(False, equal)] if len(order) else order]
            new = np.ones(len(rows), bool)
            new[1:] = (rows["value"][1:] != rows["value"][:-1]) | (rows["digest"][1:] != rows["digest"][:-1])
            members.append(rows[new])
        return members

    def _columns(self, column: Callable[[Signed], npt.NDArray[Any]]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """A column of every shard, so many documents at a time, with the first of them."""
        for first, shard in zip(self.starts.tolist(), self.shards, strict=False):
            for start, values in chunks(column(shard), PORTION):
                yield first + start, values

    def similarities(self, pairs_P2: Indices) -> npt.NDArray[np.float64]:
        """The Jaccard similarity of the shingles of each pair of documents, float64 (P,)."""
        shards_P2 = np.searchsorted(self.starts, pairs_P2, side="right") - 1
        rows_P2 = pairs_P2 - self.starts[shards_P2]
        found_P = np.empty(len(pairs_P2), np.float64)
        for start in range(0, len(found_P), COMPARED):
            part = slice(start, start + COMPARED)
            found_P[part] = [
                jaccard(self.shards[one].shingles(row), self.shards[other].shingles(other_row))
                for (one, other), (row, other_row) in zip(shards_P2[part].tolist(), rows_P2[part].tolist(), strict=True)
            ]
            for shard in np.unique(shards_P2[part]).tolist():
                release_pages(self.shards[shard].shingles_S)
                release_pages(self.shards[shard].ends_D)
        return found_P


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


class Refused:
    """Pairs that are known not to be similar; of two that fall into one place only the later is remembered."""

    def __init__(self) -> None:
        self._codes = np.zeros(REMEMBERED, np.uint64)  # zero is no pair's

    def has(self, codes_P: Words) -> npt.NDArray[np.bool_]:
        """Whether each pair is remembered."""
        found: npt.NDArray[np.bool_] = self._codes[self._places(codes_P)] == codes_P
        return found

    def add(self, codes_P: Words) -> None:
        """Remembers pairs."""
        self._codes[self._places(codes_P)] = codes_P

    def _places(self, codes_P: Words) -> Words:
        return mix(codes_P.copy()) % np.uint64(REMEMBERED)


def similar_pairs(scope: Scope, bands: Iterable[int], similarity: float) -> Indices:
    """int64 (P, 2), sorted: pairs of a similarity of at least `similarity` that connect all that such pairs connect.

    Of candidates in `bands` only; the pairs are a part of those, since the connected are not compared again.
    """
    found = Scratch(np.uint64)
    connected = UnionFind(np.arange(len(scope), dtype=index_type(len(scope))))
    refused = Refused()
    for band in bands:
        members = scope.bucketed(band)
        for reaches in REACHES:
            before, any_near = len(found), False
            for pairs in _neighbours(members, reaches):
                any_near = True
                firsts_P2 = connected.firsts(pairs)
                pairs = pairs[firsts_P2[:, 0] != firsts_P2[:, 1]]
                pairs = pairs[~refused.has(_codes(pairs))]
                alike = scope.similarities(pairs) >= similarity
                refused.add(_codes(pairs[~alike]))
                found.append(_codes(pairs[alike]))
            if not any_near:
                break
            for start in range(before, len(found), PORTION):  # only now, so that portions do not show
                connected.connect(_pairs(found.read(start, start + PORTION)))
    return _sorted(found, len(scope))


def _neighbours(members: Scratch, reaches: range) -> Iterator[Indices]:
    """int64 (P, 2), portions that are not empty: members so many places apart, the smaller first, of one value."""
    for start in range(0, len(members), PORTION):
        rows = members.read(start, start + PORTION + reaches[-1])
        count = min(PORTION, len(rows))
        pairs = [np.zeros((0, 2), np.int64)]
        for reach in reaches:
            there = max(0, min(count, len(rows) - reach))
            near = np.flatnonzero(rows["value"][reach : there + reach] == rows["value"][:there])
            pairs.append(np.stack([rows["document"][near], rows["document"][near + reach]], axis=1))
        found = np.sort(np.concatenate(pairs), axis=1)
        if len(found):
            yield found


def _sorted(codes: Scratch, count: int) -> Indices:
    """The different pairs of codes, in order: int64 (P, 2), on disk, of `count` documents."""
    parts = Parts(len(codes), np.uint64)
    for codes_P in codes.portions():
        parts.put(parts.by_number((codes_P >> np.uint64(32)).astype(np.int64), count), codes_P)
    found = Scratch(np.int64)
    for codes_P in parts:
        found.append(_pairs(np.unique(codes_P)).reshape(-1))
    return found.mapped((len(found) // 2, 2))


def _codes(pairs_P2: Indices) -> Words:
    assert not len(pairs_P2) or pairs_P2.max() < 1 << 32, "more documents than fit into 32 bits"
    codes: Words = (pairs_P2[:, 0].astype(np.uint64) << np.uint64(32)) | pairs_P2[:, 1].astype(np.uint64)
    return codes


def _pairs(codes_P: Words) -> Indices:
    """The pairs of `_codes`."""
    return np.stack([codes_P >> np.uint64(32), codes_P & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)
