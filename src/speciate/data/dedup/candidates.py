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
from speciate.data.arrays.indexing import index_dtype, unique_rows
from speciate.data.arrays.npy import chunks, release_pages
from speciate.data.arrays.scratch import CHUNK_ROWS, Partitions, ScratchArray
from speciate.data.dedup import minhash
from speciate.data.dedup.shingles import splitmix64
from speciate.data.dedup.signatures import MAX_SHINGLES, TEXT_COLUMNS, Digests, SignedShard, read_signed_shards
from speciate.data.dedup.union_find import UnionFind

DISTANCE_RANGES = (range(1, 2), range(2, 4), range(4, 8), range(8, 16), range(16, 32))
"""How far apart in its bucket a text may be from those that it is compared with, in turns."""
MEMBER_DTYPE = np.dtype([("value", np.uint64), ("digest", np.uint64), ("document", np.int64)])
"""A document in a bucket of a band: the band's hash, and the first half of its text's digest."""
COMPARED_PAIRS = 64
"""Pairs that are compared before the pages of their shingles are given back."""
REJECTED_SLOTS = 1 << 20
"""Pairs that are known not to be similar, about."""
Indices = npt.NDArray[np.int64]


def read_scope(folders: Mapping[str, pathlib.Path], parts: Sequence[ComparedDomain], num_bands: int) -> "SignedScope":
    """The signed documents of every shard of every domain, in the order of `parts`.

    Args:
        folders: for each domain the folder of its shards' folders.
        parts: the domains.
        num_bands: bands of their signatures.

    Raises:
        ValueError: files that `sign` did not write so.
    """
    shards = [each for part in parts for each in read_signed_shards(part.name, folders[part.name], part.shards)]
    for each in shards:
        if len(each.bands_BD) != num_bands:
            where = folders[each.domain] / str(each.shard)
            raise ValueError(f"{where}: is signed with {len(each.bands_BD)} bands, not {num_bands}")
    return SignedScope(shards)


class SignedScope:
    """The documents that are compared with each other: all shards end to end, each known by its index there."""

    def __init__(self, shards: Sequence[SignedShard]) -> None:
        self.shards = shards
        self.starts: Indices = np.concatenate([[0], np.cumsum([len(shard) for shard in shards], dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @functools.cached_property
    def domains(self) -> list[str]:
        """The domains, in order."""
        return list(dict.fromkeys(shard.domain for shard in self.shards))

    def domain_indices(self, documents_N: npt.NDArray[np.integer[Any]]) -> Indices:
        """int64 (N,): documents' domains, by their places in `domains`."""
        numbers = np.array([self.domains.index(shard.domain) for shard in self.shards], np.int64)
        return numbers[np.searchsorted(self.starts, documents_N, side="right") - 1]

    def locate(self, document: int) -> tuple[SignedShard, int]:
        """The shard of a document, and its row there."""
        shard = int(np.searchsorted(self.starts, document, side="right")) - 1
        return self.shards[shard], document - int(self.starts[shard])

    def first_of_same_text(self) -> npt.NDArray[np.signedinteger[Any]]:
        """int (D,): the first document of the same text as each document."""
        firsts_D = np.zeros(len(self), index_dtype(len(self)))
        parts = Partitions(len(self), [("digest", np.uint64, 2), ("document", np.int64)])
        for start, digests_N2 in self._iterate_column(lambda shard: shard.digests_D5[:, TEXT_COLUMNS]):
            rows = np.empty(len(digests_N2), parts.dtype)
            rows["digest"], rows["document"] = digests_N2, np.arange(start, start + len(rows))
            parts.add(parts.partitions_by_hash(digests_N2[:, 0]), rows)
        for rows in parts:
            firsts, places = unique_rows(rows["digest"])
            firsts_D[rows["document"]] = rows["document"][firsts][places]
        return firsts_D

    def band_members(self, band: int) -> ScratchArray:
        """The `MEMBER`s of a band: documents of different text that agree with another one on it, sorted by its hash.

        Those of one hash by their digests.
        """
        parts = Partitions(len(self), MEMBER_DTYPE)
        texts = self._iterate_column(lambda shard: shard.digests_D5[:, 0])
        for (start, values_N), (_, digests_N) in zip(
            self._iterate_column(lambda shard: shard.bands_BD[band]), texts, strict=True
        ):
            rows = np.empty(len(values_N), MEMBER_DTYPE)
            rows["value"], rows["digest"] = values_N, digests_N
            rows["document"] = np.arange(start, start + len(rows))
            parts.add(parts.partitions_by_hash(values_N), rows)
        members = ScratchArray(MEMBER_DTYPE)
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

    def _iterate_column(self, column: Callable[[SignedShard], npt.NDArray[Any]]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """A column of every shard, so many documents at a time, with the first of them."""
        for first, shard in zip(self.starts.tolist(), self.shards, strict=False):
            for start, values in chunks(column(shard), CHUNK_ROWS):
                yield first + start, values

    def similarities(self, pairs_P2: Indices) -> npt.NDArray[np.float64]:
        """The Jaccard similarity of the shingles of each pair of documents, float64 (P,)."""
        shards_P2 = np.searchsorted(self.starts, pairs_P2, side="right") - 1
        rows_P2 = pairs_P2 - self.starts[shards_P2]
        found_P = np.empty(len(pairs_P2), np.float64)
        for start in range(0, len(found_P), COMPARED_PAIRS):
            part = slice(start, start + COMPARED_PAIRS)
            found_P[part] = [
                jaccard_similarity(self.shards[one].shingles(row), self.shards[other].shingles(other_row))
                for (one, other), (row, other_row) in zip(shards_P2[part].tolist(), rows_P2[part].tolist(), strict=True)
            ]
            for shard in np.unique(shards_P2[part]).tolist():
                release_pages(self.shards[shard].shingles_S)
                release_pages(self.shards[shard].ends_D)
        return found_P


def jaccard_similarity(one: minhash.HashSet, other: minhash.HashSet) -> float:
    """|A & B| / |A | B| of the sets that `one` and `other` are the smallest hashes of, sorted; 0 for two empty ones.

    A set of `SKETCH` hashes may go on beyond its last one; both are known as far as the smaller such last.
    """
    lasts = [each[-1] for each in (one, other) if len(each) >= MAX_SHINGLES]
    if lasts:
        one, other = (each[: np.searchsorted(each, min(lasts), side="right")] for each in (one, other))
    both = np.concatenate([one, other])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / max(1, len(both) - shared)


class RejectedPairs:
    """Pairs that are known not to be similar; of two that fall into one place only the later is remembered."""

    def __init__(self) -> None:
        self._codes = np.zeros(REJECTED_SLOTS, np.uint64)  # zero is no pair's

    def contains(self, codes_P: Digests) -> npt.NDArray[np.bool_]:
        """Whether each pair is remembered."""
        found: npt.NDArray[np.bool_] = self._codes[self._slots(codes_P)] == codes_P
        return found

    def add(self, codes_P: Digests) -> None:
        """Remembers pairs."""
        self._codes[self._slots(codes_P)] = codes_P

    def _slots(self, codes_P: Digests) -> Digests:
        return splitmix64(codes_P.copy()) % np.uint64(REJECTED_SLOTS)


def find_similar_pairs(scope: SignedScope, bands: Iterable[int], similarity: float) -> Indices:
    """int64 (P, 2), sorted: pairs of a similarity of at least `similarity` that connect all that such pairs connect.

    Of candidates in `bands` only; the pairs are a part of those, since the connected are not compared again.
    """
    found = ScratchArray(np.uint64)
    connected = UnionFind(np.arange(len(scope), dtype=index_dtype(len(scope))))
    refused = RejectedPairs()
    for band in bands:
        members = scope.band_members(band)
        for reaches in DISTANCE_RANGES:
            before, any_near = len(found), False
            for pairs in _neighbour_pairs(members, reaches):
                any_near = True
                firsts_P2 = connected.find(pairs)
                pairs = pairs[firsts_P2[:, 0] != firsts_P2[:, 1]]
                pairs = pairs[~refused.contains(_encode_pairs(pairs))]
                alike = scope.similarities(pairs) >= similarity
                refused.add(_encode_pairs(pairs[~alike]))
                found.append(_encode_pairs(pairs[alike]))
            if not any_near:
                break
            for start in range(before, len(found), CHUNK_ROWS):  # only now, so that portions do not show
                connected.union(_decode_pairs(found.read(start, start + CHUNK_ROWS)))
    return _sort_unique_pairs(found, len(scope))


def _neighbour_pairs(members: ScratchArray, reaches: range) -> Iterator[Indices]:
    """int64 (P, 2), portions that are not empty: members so many places apart, the smaller first, of one value."""
    for start in range(0, len(members), CHUNK_ROWS):
        rows = members.read(start, start + CHUNK_ROWS + reaches[-1])
        count = min(CHUNK_ROWS, len(rows))
        pairs = [np.zeros((0, 2), np.int64)]
        for reach in reaches:
            there = max(0, min(count, len(rows) - reach))
            near = np.flatnonzero(rows["value"][reach : there + reach] == rows["value"][:there])
            pairs.append(np.stack([rows["document"][near], rows["document"][near + reach]], axis=1))
        found = np.sort(np.concatenate(pairs), axis=1)
        if len(found):
            yield found


def _sort_unique_pairs(codes: ScratchArray, count: int) -> Indices:
    """The different pairs of codes, in order: int64 (P, 2), on disk, of `count` documents."""
    parts = Partitions(len(codes), np.uint64)
    for codes_P in codes.chunks():
        parts.add(parts.partitions_by_number((codes_P >> np.uint64(32)).astype(np.int64), count), codes_P)
    found = ScratchArray(np.int64)
    for codes_P in parts:
        found.append(_decode_pairs(np.unique(codes_P)).reshape(-1))
    return found.memory_map((len(found) // 2, 2))


def _encode_pairs(pairs_P2: Indices) -> Digests:
    assert not len(pairs_P2) or pairs_P2.max() < 1 << 32, "more documents than fit into 32 bits"
    codes: Digests = (pairs_P2[:, 0].astype(np.uint64) << np.uint64(32)) | pairs_P2[:, 1].astype(np.uint64)
    return codes


def _decode_pairs(codes_P: Digests) -> Indices:
    """The pairs of `_codes`."""
    return np.stack([codes_P >> np.uint64(32), codes_P & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)
