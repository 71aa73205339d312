"""Seeded draws over documents: permuted labels for nulls, resampled documents for intervals.

A draw depends only on the seed, its purpose and the groups. All runs of a study see the same probe and test documents,
so draw b of one run and draw b of another shuffle or resample the same documents: draws are paired across runs.

Documents of one group (a template, an article; by default each document is its own group) are near copies of each
other. To permute or resample them one by one would count one observation many times over. Groups are resampled as they
are. For a test they are first gathered into units, about equally large within a domain, with as many units in every
domain.

Shape suffixes: B draws, G groups, U units, D domains, X any trailing axes.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speciate.selection.tally import Array

Integers = npt.NDArray[np.int64]

MOST_UNITS = 64
"""Largest number of units of a domain: more would cost more and tell no more."""
SUMS_AT_ONCE = 12_000_000
"""Numbers in one matrix product: this bounds the memory of a draw's sums to about 100 MB."""


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the Philox stream (Salmon et al. 2011) of this seed and purpose: counter-based, the same everywhere."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, zlib.crc32(purpose.encode())], dtype=np.uint64)))


def sum_into(place_G: Integers, num_places: int, value: Array, axis: int = 0) -> Array:
    """Sum `value` along `axis` by the place of each entry, 0 <= place < num_places; entries at -1 are left out."""
    moved = np.moveaxis(value, axis, 0)
    sums = np.zeros((num_places, *moved.shape[1:]))
    np.add.at(sums, place_G[place_G >= 0], moved[place_G >= 0])
    return np.moveaxis(sums, 0, axis)


@dataclass(frozen=True, eq=False)
class Units:
    """The units of a test: groups of one domain put together, about equally large, as many in every domain."""

    unit_G: Integers
    """The unit of each group; -1 in a domain without a decision."""
    domain_U: Integers
    """The domain of each unit."""

    def sum(self, value: Array, axis: int = 0) -> Array:
        """Sum over the groups of each unit, along `axis`."""
        return sum_into(self.unit_G, len(self.domain_U), value, axis)


def gather_units(size_G: Array, domain_G: Integers) -> Units:
    """Gather groups into units: in each domain the largest group first, into the unit that is smallest so far.

    Every domain gets the same number of units: the smallest, over domains, of the effective number of groups
    (sum n_g)^2 / sum n_g^2, rounded; at least two, since a single unit has no spread, and at most `MOST_UNITS`. A
    domain that has a single group with decisions gets one unit.

    Args:
        size_G: number of decisions in each group.
        domain_G: domain of each group.

    Raises:
        ValueError: no group has a decision.
    """
    present = [domain for domain in np.unique(domain_G).tolist() if size_G[domain_G == domain].sum() > 0]
    if not present:
        raise ValueError("the selector made no decision, so there is nothing to measure")
    of_domain = [size_G[domain_G == domain] for domain in present]
    common = max(2, min(round(float(size.sum() ** 2 / (size**2).sum())) for size in of_domain))
    unit_G = np.full(len(domain_G), -1, dtype=np.int64)
    domain_U: list[int] = []
    for domain, size in zip(present, of_domain, strict=True):
        (members,) = np.nonzero(domain_G == domain)
        filled_U = np.zeros(min(common, MOST_UNITS, int((size > 0).sum())))
        for group in members[np.argsort(-size_G[members], kind="stable")].tolist():
            unit = int(filled_U.argmin())
            filled_U[unit] += size_G[group]
            unit_G[group] = len(domain_U) + unit
        domain_U += [domain] * len(filled_U)
    return Units(unit_G, np.array(domain_U, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class NullDraws:
    """The draws of a null: domains shuffled among the units, and signs. Row 0 of each is what was observed."""

    label_BU: Integers
    sign_BU: Array
    seed: int

    @property
    def domain_U(self) -> Integers:
        """Return the true domains."""
        first: Integers = self.label_BU[0]
        return first

    def of_units(self, kept_U: npt.NDArray[np.bool_]) -> "NullDraws":
        """Return draws of some of the units alone."""
        return self if kept_U.all() else null_draws(self.domain_U[kept_U], len(self.label_BU) - 1, self.seed)


def null_draws(domain_U: Integers, num_draws: int, seed: int) -> NullDraws:
    """Return `num_draws` permutations of the units' domains and as many patterns of signs, after the observation."""
    coin_BU = generator(seed, "signs").integers(0, 2, (num_draws + 1, len(domain_U)))
    sign_BU = 1 - 2 * coin_BU.astype(np.float64)
    sign_BU[0] = 1
    return NullDraws(permuted_labels(domain_U, num_draws, seed), sign_BU, seed)


def permuted_labels(domain_U: Integers, num_draws: int, seed: int) -> Integers:
    """Return the units' true domains in row 0 and shuffled among the units in rows 1..num_draws, (B + 1, U)."""
    shuffled = generator(seed, "permutations").permuted(np.tile(domain_U, (num_draws, 1)), axis=1)
    return np.concatenate([domain_U[None], shuffled])


def resample_counts(domain_G: Integers, num_draws: int, seed: int) -> Array:
    """Return how often each draw takes each group, (B, G): with replacement, from a domain as many groups as it has.

    Groups are drawn within domains, because the study, not chance, decides how many blocks each domain has.
    """
    draw = generator(seed, "resamples")
    times_BG = np.zeros((num_draws, len(domain_G)))
    for domain in np.unique(domain_G):
        (members,) = np.nonzero(domain_G == domain)
        times_BG[:, members] = draw.multinomial(len(members), np.full(len(members), 1 / len(members)), size=num_draws)
    return times_BG


def assign_halves(domain_G: Integers, seed: int) -> npt.NDArray[np.bool_]:
    """Split the groups in two, with half of every domain's groups (give or take one) in each; True marks the second."""
    draw = generator(seed, "halves")
    second_G = np.zeros(len(domain_G), dtype=np.bool_)
    for domain in np.unique(domain_G):
        second_G[draw.permutation(np.nonzero(domain_G == domain)[0])[1::2]] = True
    return second_G


def sums_by_label(label_BU: Integers, num_domains: int, value_UX: Array) -> Array:
    """Sum `value_UX` over the units under each label, for every draw of labels, (B, D, X), in one matrix product."""
    member_BDU = (label_BU[:, None, :] == np.arange(num_domains)[:, None]).astype(np.float64)
    flat = member_BDU.reshape(-1, len(value_UX)) @ value_UX.reshape(len(value_UX), -1)
    result: Array = flat.reshape(len(label_BU), num_domains, *value_UX.shape[1:])
    return result


def sums_by_resample(times_BG: Array, domain_G: Integers, num_domains: int, value_GX: Array) -> Array:
    """Sum `value_GX` over the resampled groups of each domain, (B, D, X)."""
    flat_GX = value_GX.reshape(len(value_GX), -1)
    sums = [times_BG[:, domain_G == d] @ flat_GX[domain_G == d] for d in range(num_domains)]
    return np.stack(sums, axis=1).reshape(len(times_BG), num_domains, *value_GX.shape[1:])
