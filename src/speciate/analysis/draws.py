"""Seeded draws over documents: permuted labels for nulls, resampled documents for intervals.

A draw depends on the seed, its purpose and the groups alone. All runs of a study see the same probe and test documents,
so draw b of one run and draw b of another shuffle or resample the same documents: draws are paired across runs.

The unit is the group (a template, an article; a document where nothing else is said). Documents of one group are near
copies of each other: to permute or resample them singly would count one observation many times over.

Shape suffixes: B draws, G groups, D domains, X any trailing axes.
"""

import zlib

import numpy as np
import numpy.typing as npt

from speciate.selection.tally import Array

Integers = npt.NDArray[np.int64]

# Columns of a matrix product at once: bounds the memory of a draw's sums to about 100 MB.
SUMS_AT_ONCE = 12_000_000


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A Philox stream (Salmon et al. 2011) of its own for each seed and purpose: counter-based, the same everywhere."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, zlib.crc32(purpose.encode())], dtype=np.uint64)))


def permutations(domain_G: Integers, num_draws: int, seed: int) -> Integers:
    """Row 0: the groups' own domains; rows 1..num_draws: the same labels shuffled among the groups, (B + 1, G)."""
    shuffled = generator(seed, "permutations").permuted(np.tile(domain_G, (num_draws, 1)), axis=1)
    return np.concatenate([domain_G[None], shuffled])


def resamples(domain_G: Integers, num_draws: int, seed: int) -> Array:
    """How often each group is drawn, (B, G): as many groups of each domain as it has, with replacement.

    Drawn within domains, since the number of blocks of each domain is a choice of the study, not of chance.
    """
    draw = generator(seed, "resamples")
    times_BG = np.zeros((num_draws, len(domain_G)))
    for domain in np.unique(domain_G):
        (members,) = np.nonzero(domain_G == domain)
        times_BG[:, members] = draw.multinomial(len(members), np.full(len(members), 1 / len(members)), size=num_draws)
    return times_BG


def halves(domain_G: Integers, seed: int) -> npt.NDArray[np.bool_]:
    """Two halves of the groups, each with half (one more or less) of every domain's groups; True marks the second."""
    draw = generator(seed, "halves")
    second_G = np.zeros(len(domain_G), dtype=np.bool_)
    for domain in np.unique(domain_G):
        second_G[draw.permutation(np.nonzero(domain_G == domain)[0])[1::2]] = True
    return second_G


def sums_by_label(label_BG: Integers, num_domains: int, value_GX: Array) -> Array:
    """Sums of `value_GX` over the groups under each label, for every draw of labels, (B, D, X): one matrix product."""
    member_BDG = (label_BG[:, None, :] == np.arange(num_domains)[:, None]).astype(np.float64)
    flat = member_BDG.reshape(-1, len(value_GX)) @ value_GX.reshape(len(value_GX), -1)
    result: Array = flat.reshape(len(label_BG), num_domains, *value_GX.shape[1:])
    return result


def sums_by_resample(times_BG: Array, domain_G: Integers, num_domains: int, value_GX: Array) -> Array:
    """Sums of `value_GX` over the resampled groups of each domain, (B, D, X)."""
    flat_GX = value_GX.reshape(len(value_GX), -1)
    sums = [times_BG[:, domain_G == d] @ flat_GX[domain_G == d] for d in range(num_domains)]
    return np.stack(sums, axis=1).reshape(len(times_BG), num_domains, *value_GX.shape[1:])
