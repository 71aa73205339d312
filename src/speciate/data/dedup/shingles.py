r"""Shingles: hashes of every run of n words of a text; they serve near-duplicates, contamination and overlaps.

A word is a maximal run of letters, digits and underscores (a regular expression's `\w`) of the text in lower case
(`str.lower`, so by Unicode's rules); everything else separates words. Equal runs of words have equal hashes, in every
process and on every machine with the same version of Unicode; different ones collide with a chance near 2^-64.
Separators do not count, so re-wrapped and re-punctuated copies are equal.

The code is vectorised over the UTF-8 bytes of many texts at once. A byte costs a table look-up and a comparison. Words
are hashed eight bytes at a time, h = mix(h ^ bytes), and runs by Horner's rule, h = h M + word, all modulo 2^64. `mix`
is `splitmix64`.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.indexing import concatenate_ranges

WORD_BYTES = bytes(byte > 127 or byte == ord("_") or chr(byte).isalnum() for byte in range(256))
SPARE_BITS = np.array([0, 56, 48, 40, 32, 24, 16, 8, 0], np.uint64)
"""Bits to shift out of an eight-byte word when only the first 0, 1, ..., 8 bytes count."""
LONG_WORD_BYTES = 64
"""Longer words (data, not language), in bytes, are hashed one at a time."""
BATCH_CHARACTERS = 1 << 17
"""Characters hashed at a time: what fits into a core's cache."""
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


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


def _hash_batch(texts: Sequence[str], ngram: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Do the same as `batch_shingle_hashes`, with memory of some ten times the texts' bytes."""
    assert ngram >= 1, ngram
    parts = [text.lower().encode() for text in texts]
    words_W, starts_W = _hash_words(b"\n".join(parts))
    stops_D = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)) + 1)
    ends_D = np.searchsorted(starts_W, stops_D)
    words_D = np.diff(ends_D, prepend=0)
    firsts_D = ends_D - words_D
    hashes_W = np.ones(
        len(words_W), np.uint64
    )  # starts from one, so that a short text's run does not equal the end of a longer run
    for offset in range(ngram):
        run = hashes_W[: max(0, len(words_W) - offset)]
        run *= MULTIPLIER
        run += words_W[offset:]
    short = np.flatnonzero((words_D > 0) & (words_D < ngram))
    hashes_W[firsts_D[short]] = 1
    for offset in range(ngram - 1):
        short = short[words_D[short] > offset]
        hashes_W[firsts_D[short]] = hashes_W[firsts_D[short]] * MULTIPLIER + words_W[firsts_D[short] + offset]
    counts_D = np.where(words_D < ngram, np.minimum(words_D, 1), words_D - ngram + 1)
    return splitmix64(hashes_W[concatenate_ranges(firsts_D, counts_D)]), counts_D


def _hash_words(data: bytes) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the hash of every word of `data`, uint64 (W,), and the byte at which each starts, int64 (W,)."""
    eights = np.ndarray(
        len(data) + 1, np.dtype("<u8"), data + bytes(8), strides=(1,)
    )  # the eight bytes that start at each byte
    inside = np.frombuffer(bytearray(b"\0" + data.translate(WORD_BYTES) + b"\0"), np.uint8)
    _unmark_separators(np.frombuffer(data, np.uint8), eights, inside[1:])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts_W, lengths_W = edges[::2], edges[1::2] - edges[::2]
    hashes_W = splitmix64(
        eights[starts_W] << SPARE_BITS[np.minimum(lengths_W, 8)]
    )  # bytes after the word's end are shifted out
    longer = np.flatnonzero((lengths_W > 8) & (lengths_W <= LONG_WORD_BYTES))
    for offset in range(8, LONG_WORD_BYTES, 8):
        longer = longer[lengths_W[longer] > offset]
        if not len(longer):
            break
        next_bytes = eights[starts_W[longer] + offset] << SPARE_BITS[np.minimum(lengths_W[longer] - offset, 8)]
        hashes_W[longer] = splitmix64(hashes_W[longer] ^ next_bytes)
    for index in np.flatnonzero(lengths_W > LONG_WORD_BYTES).tolist():
        word = data[starts_W[index] : starts_W[index] + lengths_W[index]]
        hashes_W[index] = int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")
    return hashes_W, starts_W


def _unmark_separators(
    data: npt.NDArray[np.uint8], eights: npt.NDArray[np.uint64], inside: npt.NDArray[np.uint8]
) -> None:
    """Clear in `inside` the characters beyond ASCII that do not belong to words; all bytes above 127 are set there."""
    firsts = np.flatnonzero(data >= 0xC0)
    if not len(firsts):
        return
    lengths = 2 + (data[firsts] >= 0xE0).astype(np.int64) + (data[firsts] >= 0xF0)
    distinct, indices = np.unique(eights[firsts] << SPARE_BITS[lengths], return_inverse=True)
    characters = [value.tobytes().lstrip(b"\0").decode() for value in distinct.astype("<u8")]
    separates = np.array([not character.isalnum() for character in characters])[indices]
    inside[concatenate_ranges(firsts[separates], lengths[separates])] = 0
