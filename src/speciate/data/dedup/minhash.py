"""MinHash: short signatures of sets; the share of places in which two agree estimates the sets' similarity.

Of two sets of hashes, the chance that the smallest is the same is their Jaccard similarity J = |A & B| / |A | B|
(Broder 1997). One permutation stands for all K (Li, Owen, Zhang 2012): the range of the hashes is cut into K bins, and
the smallest hash of each bin is one value of the signature. A bin that is empty, as most are for a short text, takes
the value of the first filled bin, in its own order, drawn once for all sets (optimal densification: Shrivastava
2017). The share of places that agree is an unbiased estimate of J. Its variance is J(1 - J) / K for sets much larger
than K, and for smaller ones about J(1 - J) over the number of filled bins.

The cost is one pass over sorted hashes, whatever K is: bins grow with the hash, so a bin's smallest hash comes first.
"""

import functools

import numpy as np
import numpy.typing as npt

from speciate.data.dedup.shingles import MULTIPLIER, splitmix64

Hashes = npt.NDArray[np.uint64]
HashSet = npt.NDArray[np.uint32]
HALF_BITS = np.uint64(32)


def hash_sets(hashes_S: Hashes, counts_D: npt.NDArray[np.int64]) -> tuple[HashSet, npt.NDArray[np.int64]]:
    """Return each text's distinct upper 32 bits of hashes, sorted, end to end, and their number per text, int64 (D,).

    Of 1000 different hashes two share their upper half with a chance of 1 in 8600.
    """
    sorted_S = (hashes_S >> HALF_BITS).astype(np.uint32)
    ends_D = np.cumsum(counts_D)
    starts_D = ends_D - counts_D
    for start, end in zip(starts_D.tolist(), ends_D.tolist(), strict=True):
        sorted_S[start:end].sort()
    is_new_S = np.ones(len(sorted_S), bool)
    is_new_S[1:] = sorted_S[1:] != sorted_S[:-1]
    is_new_S[starts_D[counts_D > 0]] = True
    num_before_S = np.concatenate([[0], np.cumsum(is_new_S)])
    return sorted_S[is_new_S], num_before_S[ends_D] - num_before_S[starts_D]


def minhash_signatures(sets_S: HashSet, counts_D: npt.NDArray[np.int64], permutations: int) -> HashSet:
    """Return the signature of each set, uint32 (D, K) for K permutations; zeros for an empty set.

    Args:
        sets_S: the sets that `hash_sets` returns.
        counts_D: number of hashes in each set.
        permutations: K.
    """
    bins_S = (sets_S * np.uint64(permutations) >> HALF_BITS).astype(np.int64)
    slots_S = np.repeat(np.arange(len(counts_D)) * permutations, counts_D) + bins_S
    is_smallest_S = np.ones(len(slots_S), bool)
    is_smallest_S[1:] = slots_S[1:] != slots_S[:-1]
    signatures_N = np.zeros(len(counts_D) * permutations, np.uint32)
    is_filled_N = np.zeros(len(signatures_N), bool)
    signatures_N[slots_S[is_smallest_S]] = sets_S[is_smallest_S]
    is_filled_N[slots_S[is_smallest_S]] = True
    empty = np.flatnonzero(~is_filled_N & np.repeat(counts_D > 0, permutations))
    for order_K in _densification_orders(permutations):
        if not len(empty):
            break
        bins = empty % permutations
        donors = empty - bins + order_K[bins]
        has_value = is_filled_N[donors]
        signatures_N[empty[has_value]] = signatures_N[donors[has_value]]
        empty = empty[~has_value]
    return signatures_N.reshape(len(counts_D), permutations)


def band_hashes(signatures_DK: HashSet, count: int) -> Hashes:
    """Return one hash per band of each signature, uint64 (B, D), equal where all values of a band are equal."""
    num_documents, permutations = signatures_DK.shape
    assert permutations % count == 0, (permutations, count)
    rows = signatures_DK.reshape(num_documents, count, permutations // count)
    hashes_DB = np.broadcast_to(np.arange(1, count + 1, dtype=np.uint64), (num_documents, count)).copy()
    for row in range(rows.shape[2]):
        hashes_DB *= MULTIPLIER
        hashes_DB += rows[:, :, row]
    return splitmix64(np.ascontiguousarray(hashes_DB.T))


@functools.cache
def _densification_orders(permutations: int) -> npt.NDArray[np.int64]:
    """Return in row a, column b the bin that bin b tries at attempt a, int64 (K, K); each column is a permutation."""
    keys = splitmix64(np.arange(permutations * permutations, dtype=np.uint64)).reshape(permutations, permutations)
    return np.argsort(keys, axis=0, kind="stable").astype(np.int64)
