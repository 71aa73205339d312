"""Sign documents: keep what finds a document's duplicates, its group and its split without its text.

One shard's folder holds, for each of its D documents, in their order:

    digests.npy   uint64 (D, 5): of the text, 128 bits; the group's key in the split's order, 128 bits; of the id, 64
    bytes.npy     int64 (D,): length of the text in UTF-8
    bands.npy     uint64 (B, D): hashes of the bands of its MinHash signature
    shingles.npy  uint32 (S,): the smallest `MAX_SHINGLES` hashes of its shingles, sorted, end to end
    ends.npy      int64 (D,): where each document's shingles end in shingles.npy

Without a search for near-duplicates, B and S are 0. A document without words has the digest of its text for bands, so
it resembles no other. The shingles let candidates be compared: exactly for two texts of at most `MAX_SHINGLES` shingles
each, else on a uniform sample (the smallest hashes of both; see data/card/sketch.py), with a standard error of sqrt(J(1
- J) / MAX_SHINGLES), 0.006 at J = 0.8. Files are written and read one row group at a time, whatever the size of the
shard.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speciate.config.data import Duplicates
from speciate.data.arrays.indexing import concatenate_ranges
from speciate.data.arrays.npy import read_array
from speciate.data.arrays.npy_writers import FixedArray, GrowingArray
from speciate.data.dedup import minhash
from speciate.data.dedup.shingles import batch_shingle_hashes, splitmix64
from speciate.data.documents import num_documents, read_tables
from speciate.data.shard import Shard
from speciate.data.splits.group_key import group_key

SIGNATURE_FILES = {
    "digests.npy": (np.uint64, 2),
    "bytes.npy": (np.int64, 1),
    "bands.npy": (np.uint64, 2),
    "shingles.npy": (np.uint32, 1),
    "ends.npy": (np.int64, 1),
}
"""File -> type and number of dimensions."""
MAX_SHINGLES = 4096
"""Most shingle hashes that are kept of a document."""
TEXT_COLUMNS, ORDER_COLUMNS, ID_COLUMN = slice(0, 2), slice(2, 4), 4
"""Columns of digests.npy."""

Digests = npt.NDArray[np.uint64]


def sign_documents(
    documents: pathlib.Path, files: Mapping[str, pathlib.Path], seed: int, near: Duplicates | None
) -> int:
    """Sign a shard's documents, and return how many there are.

    Args:
        documents: the shard's documents file.
        files: where to write each of `SIGNATURE_FILES`.
        seed: seed of the split.
        near: how near-duplicates are found; None where only equal texts count.

    Raises:
        ValueError: the file is not a documents file; the message names it.
    """
    count = num_documents(documents)
    num_bands = near.bands if near else 0
    num_signed, num_shingles = 0, 0
    with contextlib.ExitStack() as stack:
        digests = stack.enter_context(FixedArray(files["digests.npy"], np.uint64, (count, 5)))
        sizes = stack.enter_context(GrowingArray(files["bytes.npy"], np.int64))
        bands = stack.enter_context(FixedArray(files["bands.npy"], np.uint64, (num_bands, count)))
        shingles = stack.enter_context(GrowingArray(files["shingles.npy"], np.uint32))
        ends = stack.enter_context(GrowingArray(files["ends.npy"], np.int64))
        for table in read_tables(documents, ["id", "group", "text"]):
            ids, groups, texts = (table.column(name).to_pylist() for name in ("id", "group", "text"))
            encoded = [text.encode() for text in texts]
            digests_D5 = _digests(ids, groups, encoded, seed)
            digests.put(5 * num_signed, digests_D5)
            sizes.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
            lengths_D = np.zeros(len(texts), np.int64)
            if near:
                bands_BD, kept_S, lengths_D = _signatures(texts, digests_D5[:, 0], near)
                for band, values_D in enumerate(bands_BD):
                    bands.put(band * count + num_signed, values_D)
                shingles.append(kept_S)
            ends.append(num_shingles + np.cumsum(lengths_D))
            num_signed, num_shingles = num_signed + len(texts), num_shingles + int(lengths_D.sum())
    return count


def _digests(ids: Sequence[str], groups: Sequence[str], encoded: Sequence[bytes], seed: int) -> Digests:
    """Return rows of digests.npy, uint64 (D, 5)."""
    joined = b"".join(
        hashlib.blake2b(text, digest_size=16).digest()
        + group_key(group, seed)
        + hashlib.blake2b(id_.encode(), digest_size=8).digest()
        for id_, group, text in zip(ids, groups, encoded, strict=True)
    )
    return np.frombuffer(joined, ">u8").astype(np.uint64).reshape(len(ids), 5)


def _signatures(
    texts: Sequence[str], digests_D: Digests, near: Duplicates
) -> tuple[Digests, minhash.HashSet, npt.NDArray[np.int64]]:
    """Return the bands (B, D), the smallest hashes of each text (S,), and how many each has (D,)."""
    sets_S, counts_D = minhash.hash_sets(*batch_shingle_hashes(texts, near.ngram))
    bands_BD = minhash.band_hashes(minhash.minhash_signatures(sets_S, counts_D, near.permutations), near.bands)
    wordless = np.flatnonzero(counts_D == 0)
    bands_BD[:, wordless] = splitmix64(digests_D[wordless] + np.arange(near.bands, dtype=np.uint64)[:, None])
    kept_D = np.minimum(counts_D, MAX_SHINGLES)
    return bands_BD, sets_S[concatenate_ranges(np.cumsum(counts_D) - counts_D, kept_D)], kept_D


@dataclass(frozen=True)
class SignedShard:
    """The signed documents of one shard; the arrays are memory-mapped."""

    domain: str
    shard: Shard
    digests_D5: Digests
    bytes_D: npt.NDArray[np.int64]
    bands_BD: Digests
    shingles_S: minhash.HashSet
    ends_D: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bytes_D)

    def shingles(self, row: int) -> minhash.HashSet:
        """Return the smallest hashes of one document's shingles, sorted."""
        return self.shingles_S[int(self.ends_D[row - 1]) if row else 0 : int(self.ends_D[row])]


def read_signed_shards(domain: str, folder: pathlib.Path, count: int) -> list[SignedShard]:
    """Read the signed shards of a domain, in order: folders `k-of-count` in `folder`.

    Raises:
        ValueError: a file is truncated, or files do not belong together; the message names the shard's folder.
    """
    return [_read_signed_shard(domain, folder, Shard(index, count)) for index in range(count)]


def _read_signed_shard(domain: str, folder: pathlib.Path, shard: Shard) -> SignedShard:
    arrays = (read_array(folder / str(shard) / file, *kind) for file, kind in SIGNATURE_FILES.items())
    signed = SignedShard(domain, shard, *map(np.asarray, arrays))
    end = int(signed.ends_D[-1]) if len(signed.ends_D) else 0
    count = len(signed)
    shapes = (signed.digests_D5.shape, signed.bands_BD.shape[1:], signed.ends_D.shape, signed.shingles_S.shape)
    if shapes != ((count, 5), (count,), (count,), (end,)):
        raise ValueError(f"{folder / str(shard)}: its files belong to different documents: arrays of shapes {shapes}")
    return signed
