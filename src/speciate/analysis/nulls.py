"""Permutation null over documents: the information that a selector without knowledge of the domain would score.

Decision: domain labels are shuffled among units of whole groups of documents (`draws.gather_units`), never among
tokens. The tokens of a document belong together, so a null over tokens is far too narrow and finds specialisation
everywhere.

    p = (1 + #{null >= I}) / (B + 1)        (Phipson & Smyth 2010: never zero, exact for exchangeable units)

The p-value alone proves nothing about learning: texts of one domain look alike, so frozen and hash routers reach its
floor too. The tables therefore also give the excess over those controls.

The limits, each tested. The shuffled units of a specialised selector still differ from each other. The null's mean
therefore holds about (D - 1) / (U - 1) of the information itself, and the excess errs downwards, by the same share for
every arm. Units of many short texts vary less than units of one long text, so labels are not strictly exchangeable:
with 7 units a domain, and ten texts to the unit in one domain, 5 % may be 7 %. A domain with one huge document is
beyond help.

Shape suffixes: B draws, U units of documents, D domains, S slots, V tokens, K observations.
"""

from dataclasses import dataclass

import numpy as np

from speciate.analysis import draws, information
from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

TIE_BITS = 1e-12
"""Values that differ by less are ties, since equal partitions may be summed in another order."""


@dataclass(frozen=True, eq=False)
class Null:
    """A statistic and its permutation null, each of shape (K,), in the statistic's unit."""

    observed: Array
    mean: Array
    low: Array
    high: Array
    z: Array
    """(observed - mean) / standard deviation of the null; NaN where the null does not vary."""
    p_value: Array

    @property
    def excess(self) -> Array:
        """Return observed - mean: the statistic without the bias that chance alone gives it."""
        return self.observed - self.mean


def compare_with_null(drawn_BK: Array, band: float) -> Null:
    """Compare row 0 of `drawn_BK`, the observation, with the null in rows 1..; `band` is the share within low..high."""
    observed, null_BK = drawn_BK[0], drawn_BK[1:]
    low, high = np.quantile(null_BK, [(1 - band) / 2, (1 + band) / 2], axis=0)
    mean, spread = null_BK.mean(axis=0), null_BK.std(axis=0, ddof=1)
    z = np.full_like(mean, np.nan)
    np.divide(observed - mean, spread, out=z, where=spread > TIE_BITS)
    p_value = (1 + (null_BK >= observed - TIE_BITS).sum(axis=0)) / (len(null_BK) + 1)
    return Null(observed, mean, low, high, z, p_value)


def domain_null(counts_KUS: Array, label_BU: Integers, num_domains: int, band: float = 0.95) -> Null:
    """Compare I(E;D) of K observations of the same units, in bits, with the permutation null.

    Args:
        counts_KUS: choices by observation, unit and slot.
        label_BU: domains of the units; row 0 has the true ones (`draws.permuted_labels`).
        num_domains: D.
        band: share of the null between `low` and `high`.
    """
    counts_UKS = np.moveaxis(counts_KUS, 0, 1)
    at_once = max(1, draws.SUMS_AT_ONCE // max(1, len(label_BU) * num_domains * counts_UKS.shape[2]))
    drawn: list[Array] = []
    for start in range(0, counts_UKS.shape[1], at_once):  # a few observations at a time, to bound memory
        sums_BDKS = draws.sums_by_label(label_BU, num_domains, counts_UKS[:, start : start + at_once])
        drawn.append(information.domain_information(np.moveaxis(sums_BDKS, 1, 2)))
    return compare_with_null(np.concatenate(drawn, axis=1), band)


def conditional_null(counts_UVS: Array, label_BU: Integers, num_domains: int, band: float = 0.95) -> Null:
    """Compare I(E;D|V) with the same permutations, shapes (1,); the tokens stay those that the true domains share."""
    at_once = max(1, draws.SUMS_AT_ONCE // max(1, num_domains * counts_UVS[0].size))
    drawn = [
        information.conditional_information(
            draws.sums_by_label(label_BU[start : start + at_once], num_domains, counts_UVS)
        )
        for start in range(0, len(label_BU), at_once)
    ]
    return compare_with_null(np.concatenate(drawn)[:, None], band)
