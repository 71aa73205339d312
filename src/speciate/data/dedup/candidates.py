"""Find pairs of similar documents: candidates by locality-sensitive hashing, then a comparison of their shingles.

Two documents whose signatures agree on a whole band of r rows are candidates. With b bands that happens with
probability 1 - (1 - J^r)^b (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4). Agreement alone is not
proof. On licence texts, joining all candidates removes three times as many documents as are similar, and judging by
signatures still misjudges one pair in nine. So each candidate pair is compared (data/dedup/signatures.py says how
exactly), and no pair below the threshold counts, however many candidates there are.

Equal texts count as one. Within a band, the texts of one bucket are sorted by their digests, and each is compared with
the next 31. That is all pairs in all but huge buckets, and the work grows no faster than the bucket. Pairs that are
already connected are not compared again. What is connected depends on the texts alone, not on shards or on how the
bands are spread over jobs.

Memory: four bytes a document (its parent in the union-find), one partition of a band at a time
(data/arrays/scratch.py), and the pages of the few shingles being compared. Scratch files hold the members of a band's
buckets and the pairs found.
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
"""Distances within a bucket at which texts are compared, one range after the other."""
MEMBER_DTYPE = np.dtype([("value", np.uint64), ("digest", np.uint64), ("document", np.int64)])
"""A document in a bucket of a band: the band's hash, and the first half of its text's digest."""
COMPARED_PAIRS = 64
"""Pairs that are compared before the pages of their shingles are released."""
REJECTED_SLOTS = 1 << 20
"""Number of slots for pairs that are known not to be similar."""
Indices = npt.NDArray[np.int64]


def read_scope(folders: Mapping[str, pathlib.Path], parts: Sequence[ComparedDomain], num_bands: int) -> "SignedScope":
    """Read the signed documents of every shard of every domain, in the order of `parts`.

    Args:
        folders: for each domain the folder of its shards' folders.
        parts: the domains.
        num_bands: number of bands of their signatures.

    Raises:
        ValueError: a file is damaged or has another number of bands.
    """
    shards = [shard for part in parts for shard in read_signed_shards(part.name, folders[part.name], part.shards)]
    for shard in shards:
        if len(shard.bands_BD) != num_bands:
            where = folders[shard.domain] / str(shard.shard)
            raise ValueError(f"{where}: is signed with {len(shard.bands_BD)} bands, not {num_bands}")
    return SignedScope(shards)


class SignedScope:
    """The documents that are compared with each other: all shards end to end, each document known by its index."""

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
        """Return the index in `domains` of each document's domain, int64 (N,)."""
        numbers = np.array([self.domains.index(shard.domain) for shard in self.shards], np.int64)
        return numbers[np.searchsorted(self.starts, documents_N, side="right") - 1]

    def locate(self, document: int) -> tuple[SignedShard, int]:
        """Return the shard of a document, and its row in that shard."""
        shard = int(np.searchsorted(self.starts, document, side="right")) - 1
        return self.shards[shard], document - int(self.starts[shard])

    def first_of_same_text(self) -> npt.NDArray[np.signedinteger[Any]]:
        """Return, for each document, the first document with the same text, int (D,)."""
        firsts_D = np.zeros(len(self), index_dtype(len(self)))
        partitions = Partitions(len(self), [("digest", np.uint64, 2), ("document", np.int64)])
        for start, digests_N2 in self._iterate_column(lambda shard: shard.digests_D5[:, TEXT_COLUMNS]):
            rows = np.empty(len(digests_N2), partitions.dtype)
            rows["digest"], rows["document"] = digests_N2, np.arange(start, start + len(rows))
            partitions.add(partitions.partitions_by_hash(digests_N2[:, 0]), rows)
        for rows in partitions:
            firsts, unique_indices = unique_rows(rows["digest"])
            firsts_D[rows["document"]] = rows["document"][firsts][unique_indices]
        return firsts_D

    def band_members(self, band: int) -> ScratchArray:
        """Return a row (`MEMBER_DTYPE`) for each distinct text whose hash on a band another document shares.

        Rows are sorted by that hash, and rows of one hash by their digests.
        """
        partitions = Partitions(len(self), MEMBER_DTYPE)
        texts = self._iterate_column(lambda shard: shard.digests_D5[:, 0])
        for (start, values_N), (_, digests_N) in zip(
            self._iterate_column(lambda shard: shard.bands_BD[band]), texts, strict=True
        ):
            rows = np.empty(len(values_N), MEMBER_DTYPE)
            rows["value"], rows["digest"] = values_N, digests_N
            rows["document"] = np.arange(start, start + len(rows))
            partitions.add(partitions.partitions_by_hash(values_N), rows)
        members = ScratchArray(MEMBER_DTYPE)
        for rows in partitions:
            values_N = rows["value"]
            order = np.lexsort((rows["digest"], values_N))
            values_N = values_N[order]
            equal = values_N[1:] == values_N[:-1]
            rows = rows[order[np.append(equal, False) | np.append(False, equal)] if len(order) else order]
            is_new = np.ones(len(rows), bool)
            is_new[1:] = (rows["value"][1:] != rows["value"][:-1]) | (rows["digest"][1:] != rows["digest"][:-1])
            members.append(rows[is_new])
        return members

    def _iterate_column(
        self, column: Callable[[SignedShard], npt.NDArray[Any]]
    ) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield a column of every shard in chunks, each with the index of its first document."""
        for first, shard in zip(self.starts.tolist(), self.shards, strict=False):
            for start, values in chunks(column(shard), CHUNK_ROWS):
                yield first + start, values

    def similarities(self, pairs_P2: Indices) -> npt.NDArray[np.float64]:
        """Return the Jaccard similarity of the shingles of each pair of documents, float64 (P,)."""
        shards_P2 = np.searchsorted(self.starts, pairs_P2, side="right") - 1
        rows_P2 = pairs_P2 - self.starts[shards_P2]
        similarities_P = np.empty(len(pairs_P2), np.float64)
        for start in range(0, len(similarities_P), COMPARED_PAIRS):
            chunk = slice(start, start + COMPARED_PAIRS)
            similarities_P[chunk] = [
                jaccard_similarity(
                    self.shards[first_shard].shingles(first_row), self.shards[second_shard].shingles(second_row)
                )
                for (first_shard, second_shard), (first_row, second_row) in zip(
                    shards_P2[chunk].tolist(), rows_P2[chunk].tolist(), strict=True
                )
            ]
            for shard in np.unique(shards_P2[chunk]).tolist():
                release_pages(self.shards[shard].shingles_S)
                release_pages(self.shards[shard].ends_D)
        return similarities_P


def jaccard_similarity(one: minhash.HashSet, other: minhash.HashSet) -> float:
    """Return |A & B| / |A | B| of the sets whose smallest hashes, sorted, are `one` and `other`; 0 for two empty sets.

    A set with `MAX_SHINGLES` hashes may have more beyond its last one. So both are compared up to the smaller such last
    hash.
    """
    lasts = [hashes[-1] for hashes in (one, other) if len(hashes) >= MAX_SHINGLES]
    if lasts:
        one, other = (hashes[: np.searchsorted(hashes, min(lasts), side="right")] for hashes in (one, other))
    merged = np.concatenate([one, other])
    merged.sort()
    shared = int(np.count_nonzero(merged[1:] == merged[:-1]))
    return shared / max(1, len(merged) - shared)


class RejectedPairs:
    """Pairs that are known not to be similar; of two pairs in one slot only the later is kept."""

    def __init__(self) -> None:
        self._codes = np.zeros(REJECTED_SLOTS, np.uint64)  # zero is not the code of any pair

    def contains(self, codes_P: Digests) -> npt.NDArray[np.bool_]:
        """Tell whether each pair is known, bool (P,)."""
        is_known_P: npt.NDArray[np.bool_] = self._codes[self._slots(codes_P)] == codes_P
        return is_known_P

    def add(self, codes_P: Digests) -> None:
        """Remember pairs."""
        self._codes[self._slots(codes_P)] = codes_P

    def _slots(self, codes_P: Digests) -> Digests:
        return splitmix64(codes_P.copy()) % np.uint64(REJECTED_SLOTS)


def find_similar_pairs(scope: SignedScope, bands: Iterable[int], similarity: float) -> Indices:
    """Return pairs of at least `similarity`, int64 (P, 2), sorted, that connect whatever all such pairs would connect.

    Only candidates in `bands` are compared. Not all similar pairs are returned, because documents that are already
    connected are not compared again.
    """
    codes = ScratchArray(np.uint64)
    components = UnionFind(np.arange(len(scope), dtype=index_dtype(len(scope))))
    rejected = RejectedPairs()
    for band in bands:
        members = scope.band_members(band)
        for distances in DISTANCE_RANGES:
            num_before, any_neighbours = len(codes), False
            for pairs in _neighbour_pairs(members, distances):
                any_neighbours = True
                firsts_P2 = components.find(pairs)
                pairs = pairs[firsts_P2[:, 0] != firsts_P2[:, 1]]
                pairs = pairs[~rejected.contains(_encode_pairs(pairs))]
                is_similar_P = scope.similarities(pairs) >= similarity
                rejected.add(_encode_pairs(pairs[~is_similar_P]))
                codes.append(_encode_pairs(pairs[is_similar_P]))
            if not any_neighbours:
                break
            # only now, so that the result does not depend on the chunks
            for start in range(num_before, len(codes), CHUNK_ROWS):
                components.union(_decode_pairs(codes.read(start, start + CHUNK_ROWS)))
    return _sort_unique_pairs(codes, len(scope))


def _neighbour_pairs(members: ScratchArray, distances: range) -> Iterator[Indices]:
    """Yield pairs of members of one hash at the given distances, int64 (P, 2), smaller first, in non-empty chunks."""
    for start in range(0, len(members), CHUNK_ROWS):
        rows = members.read(start, start + CHUNK_ROWS + distances[-1])
        count = min(CHUNK_ROWS, len(rows))
        pairs = [np.zeros((0, 2), np.int64)]
        for distance in distances:
            num_pairs = max(0, min(count, len(rows) - distance))
            matches = np.flatnonzero(rows["value"][distance : num_pairs + distance] == rows["value"][:num_pairs])
            pairs.append(np.stack([rows["document"][matches], rows["document"][matches + distance]], axis=1))
        sorted_pairs = np.sort(np.concatenate(pairs), axis=1)
        if len(sorted_pairs):
            yield sorted_pairs


def _sort_unique_pairs(codes: ScratchArray, count: int) -> Indices:
    """Return the distinct pairs of `codes`, among `count` documents, sorted: int64 (P, 2), on disk."""
    partitions = Partitions(len(codes), np.uint64)
    for codes_P in codes.chunks():
        partitions.add(partitions.partitions_by_number((codes_P >> np.uint64(32)).astype(np.int64), count), codes_P)
    pairs = ScratchArray(np.int64)
    for codes_P in partitions:
        pairs.append(_decode_pairs(np.unique(codes_P)).reshape(-1))
    return pairs.memory_map((len(pairs) // 2, 2))


def _encode_pairs(pairs_P2: Indices) -> Digests:
    assert not len(pairs_P2) or pairs_P2.max() < 1 << 32, "more documents than fit into 32 bits"
    codes: Digests = (pairs_P2[:, 0].astype(np.uint64) << np.uint64(32)) | pairs_P2[:, 1].astype(np.uint64)
    return codes


def _decode_pairs(codes_P: Digests) -> Indices:
    """Return the pairs that `_encode_pairs` encoded."""
    return np.stack([codes_P >> np.uint64(32), codes_P & np.uint64(0xFFFFFFFF)], axis=1).astype(np.int64)
