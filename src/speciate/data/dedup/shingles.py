"""Shingles: hashes of every run of n words of a text; they serve near-duplicates, contamination and overlaps.

`data/dedup/units.py` says what a word is, and what counts as one in a script without spaces. Equal runs have equal
hashes, in every process and on every machine with the same versions of Python and `regex`, whose tables of Unicode
decide. Different runs collide with a chance near 2^-64. Separators do not count, so re-wrapped and re-punctuated copies
are equal.

Units are hashed eight bytes at a time, h = mix(h ^ bytes), and runs by Horner's rule, h = h M + unit, all modulo 2^64.
`mix` is `splitmix64`.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speciate.data.dedup.units import SPARE_BITS, Units, find_units

LONG_WORD_BYTES = 64
"""Longer words (data, not language), in bytes, are hashed one at a time."""
BATCH_CHARACTERS = 1 << 17
"""Characters hashed at a time: what fits into a core's cache."""
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
INVERSE = np.uint64(pow(int(MULTIPLIER), -1, 1 << 64))
"""What undoes a multiplication by MULTIPLIER modulo 2^64."""


def splitmix64(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit values one-to-one, in place: every output bit depends on every input bit.

    This is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
    """
    hashes ^= hashes >> np.uint64(30)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes


def shingle_hashes(text: str, ngram: int) -> npt.NDArray[np.uint64]:
    """Return the hashes of every run of `ngram` words of `text`, uint64 (S,), in order, repeats kept.

    A text with fewer words than `ngram` has one shingle of all of them; a text without words has none.
    """
    return _hash_batch([text], ngram)[0]


def batch_shingle_hashes(texts: Sequence[str], ngram: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return `shingle_hashes` of many texts end to end, uint64 (S,), and how many each has, int64 (D,).

    This is faster than one text at a time.
    """
    results: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]] = []
    pending: list[str] = []
    size = 0
    for text in texts:
        pending.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            results.append(_hash_batch(pending, ngram))
            pending, size = [], 0
    results.append(_hash_batch(pending, ngram))
    return np.concatenate([hashes for hashes, _ in results]), np.concatenate([counts for _, counts in results])


def read_run(text: str, ngram: int, index: int) -> str:
    """Return the words of the run of `text` that has the hash `shingle_hashes(text, ngram)[index]`."""
    units = find_units([text])
    starts_R, stops_R, _ = units.runs(ngram)
    return units.read(int(starts_R[index]), int(stops_R[index]))


def _hash_batch(texts: Sequence[str], ngram: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Do the same as `batch_shingle_hashes`, with memory of some 15 to 25 times the texts' bytes.

    Horner's rule gives a run of units u_s, ..., u_(e-1) the hash M^(e-s) + sum of u_i M^(e-1-i), which is M^(e-s) +
    M^e (P_e - P_s) with the sums P_j of u_i M^-(i+1) over i < j: M is odd and has an inverse. The first term tells a
    short text's run from the end of a longer run.
    """
    assert ngram >= 1, ngram
    units = find_units(texts)
    # in place, because a single text may have millions of units
    count = len(units.starts_W)
    sums = np.zeros(count + 1, np.uint64)
    sums[1:] = _hash_units(units)
    sums[1:] *= _powers(INVERSE, count + 1)[1:]
    np.cumsum(sums, out=sums)
    starts_R, stops_R, counts_D = units.runs(ngram)
    hashes_R = sums[stops_R]
    hashes_R -= sums[starts_R]
    del sums
    powers = _powers(MULTIPLIER, count + 1)
    hashes_R *= powers[stops_R]
    hashes_R += powers[stops_R - starts_R]
    return splitmix64(hashes_R), counts_D


def _powers(base: np.uint64, count: int) -> npt.NDArray[np.uint64]:
    """Return base^0 to base^(count - 1) modulo 2^64."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, out=powers)


def _hash_units(units: Units) -> npt.NDArray[np.uint64]:
    """Return the hash of every unit, uint64 (W,)."""
    eights, starts_W, lengths_W = units.eights(), units.starts_W, units.lengths_W
    # bytes after the unit's end are shifted out
    hashes_W = splitmix64(eights[starts_W] << SPARE_BITS[np.minimum(lengths_W, 8)])
    longer = np.flatnonzero((lengths_W > 8) & (lengths_W <= LONG_WORD_BYTES))
    for offset in range(8, LONG_WORD_BYTES, 8):
        longer = longer[lengths_W[longer] > offset]
        if not len(longer):
            break
        next_bytes = eights[starts_W[longer] + offset] << SPARE_BITS[np.minimum(lengths_W[longer] - offset, 8)]
        hashes_W[longer] = splitmix64(hashes_W[longer] ^ next_bytes)
    for index in np.flatnonzero(lengths_W > LONG_WORD_BYTES).tolist():
        word = units.data[starts_W[index] : starts_W[index] + lengths_W[index]]
        hashes_W[index] = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
    return hashes_W
