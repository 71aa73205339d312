"""What a selector that knows nothing of the domain would score: the permutation null over documents.

Decision: the domain labels are shuffled among units of whole groups of documents (`draws.units`), never among tokens.
The tokens of a document go together, so that a token-level null is far too narrow and finds specialisation everywhere.

    p = (1 + #{null >= I}) / (B + 1)        (Phipson & Smyth 2010: never zero, exact for exchangeable units)

The p-value alone proves nothing about learning: texts of one domain look alike, so that frozen and hash routers reach
its floor too. The tables therefore give the excess over those controls beside it.

Its limits, each tested. The shuffled units of a specialised selector still differ from each other: the null mean holds
about (D - 1) / (U - 1) of the information itself, so that the excess errs downwards, by the same share for every arm.
Units of many short texts vary less than units of one long one, so that labels are not exchangeable to the letter: at
7 units a domain, ten texts to the unit in one domain, 5 % may be 7 %. A domain with one huge document is beyond help.

Shape suffixes: B draws, U units of documents, D domains, S slots, V tokens, K observations.
"""

from dataclasses import dataclass

import numpy as np

from speciate.analysis import draws, information
from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

# Equal partitions may sum in another order; a difference this small is none.
TIE_BITS = 1e-12


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
        """observed - mean: the statistic without the bias that chance alone gives it."""
        return self.observed - self.mean


def against(drawn_BK: Array, band: float) -> Null:
    """The null in rows 1.. of `drawn_BK` beside the observed row 0; `band` is the share between low and high."""
    observed, null_BK = drawn_BK[0], drawn_BK[1:]
    low, high = np.quantile(null_BK, [(1 - band) / 2, (1 + band) / 2], axis=0)
    mean, spread = null_BK.mean(axis=0), null_BK.std(axis=0, ddof=1)
    z = np.full_like(mean, np.nan)
    np.divide(observed - mean, spread, out=z, where=spread > TIE_BITS)
    p_value = (1 + (null_BK >= observed - TIE_BITS).sum(axis=0)) / (len(null_BK) + 1)
    return Null(observed, mean, low, high, z, p_value)


def domain_null(counts_KUS: Array, label_BU: Integers, num_domains: int, band: float = 0.95) -> Null:
    """I(E;D) of K observations of the same units against the permutation null, in bits.

    Args:
        counts_KUS: choices by observation, unit and slot.
        label_BU: domains of the units, row 0 the true ones (`draws.permutations`).
        num_domains: D.
        band: share of the null between `low` and `high`.
    """
    counts_UKS = np.moveaxis(counts_KUS, 0, 1)
    at_once = max(1, draws.SUMS_AT_ONCE // max(1, len(label_BU) * num_domains * counts_UKS.shape[2]))
    drawn: list[Array] = []
    for start in range(0, counts_UKS.shape[1], at_once):  # a few observations at a time, to bound memory
        sums_BDKS = draws.sums_by_label(label_BU, num_domains, counts_UKS[:, start : start + at_once])
        drawn.append(information.domain_information(np.moveaxis(sums_BDKS, 1, 2)))
    return against(np.concatenate(drawn, axis=1), band)


def conditional_null(counts_UVS: Array, label_BU: Integers, num_domains: int, band: float = 0.95) -> Null:
    """I(E;D|V) against the same permutations; the tokens stay those that the true domains share. Shapes (1,)."""
    at_once = max(1, draws.SUMS_AT_ONCE // max(1, num_domains * counts_UVS[0].size))
    drawn = [
        information.conditional_information(
            draws.sums_by_label(label_BU[start : start + at_once], num_domains, counts_UVS)
        )
        for start in range(0, len(label_BU), at_once)
    ]
    return against(np.concatenate(drawn)[:, None], band)
