"""What a selector that knows nothing of the domain would score: the permutation null over documents.

Decision: the domain labels are shuffled among the groups of documents (`draws.permutations`), never among tokens. The
tokens of a document go together, so that a token-level null is far too narrow and finds specialisation in any router.

    p = (1 + #{null >= I}) / (B + 1)        (Phipson & Smyth 2010: never zero, exact for exchangeable groups)

The p-value alone proves nothing about learning: texts of one domain look alike, so that frozen and hash routers reach
its floor too. The tables therefore give the excess over those controls beside it.

With groups of unequal size the labels are not exchangeable to the letter; where one domain has few long groups and
another many short ones, the shuffled domains are more uneven than the true ones, and the null errs upwards (tested).

Shape suffixes: B draws, G groups, D domains, S slots, V tokens, K observations.
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


def domain_null(counts_KGS: Array, label_BG: Integers, num_domains: int, band: float = 0.95) -> Null:
    """I(E;D) of K observations of the same groups against the permutation null, in bits.

    Args:
        counts_KGS: choices by observation, group and slot.
        label_BG: domains of the groups, row 0 the true ones (`draws.permutations`).
        num_domains: D.
        band: share of the null between `low` and `high`.
    """
    counts_GKS = np.moveaxis(counts_KGS, 0, 1)
    at_once = max(1, draws.SUMS_AT_ONCE // max(1, len(label_BG) * num_domains * counts_GKS.shape[2]))
    drawn: list[Array] = []
    for start in range(0, counts_GKS.shape[1], at_once):  # a few observations at a time, to bound memory
        sums_BDKS = draws.sums_by_label(label_BG, num_domains, counts_GKS[:, start : start + at_once])
        drawn.append(information.domain_information(np.moveaxis(sums_BDKS, 1, 2)))
    return against(np.concatenate(drawn, axis=1), band)


def conditional_null(counts_GVS: Array, label_BG: Integers, num_domains: int, band: float = 0.95) -> Null:
    """I(E;D|V) against the same permutations; the tokens stay those that the true domains share. Shapes (1,)."""
    at_once = max(1, draws.SUMS_AT_ONCE // max(1, num_domains * counts_GVS[0].size))
    drawn = [
        information.conditional_information(
            draws.sums_by_label(label_BG[start : start + at_once], num_domains, counts_GVS)
        )
        for start in range(0, len(label_BG), at_once)
    ]
    return against(np.concatenate(drawn)[:, None], band)
