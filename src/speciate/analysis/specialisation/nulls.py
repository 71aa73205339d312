"""Tests whether a selector's choices tell the domain, with documents as units, and the information that chance gives.

Choices are compared by Welch's statistic (`welch`), which allows for domains of unequal numbers of decisions and
unequal spread. It has two nulls, and the larger p-value counts:

- The domains are shuffled among the units of whole groups of documents (`draws.gather_units`), never among tokens:
  those of one document belong together. Exact where units are exchangeable (equal sizes, equal tastes); for other units
  right in the limit of many, because the statistic is studentised (Chung & Romano 2013).
- The sign of each unit's deviation from the common shares is drawn (wild cluster bootstrap with the null imposed;
  Cameron, Gelbach & Miller 2008). Right where units deviate symmetrically, however unequal they are.

    p = (1 + #{null >= observed}) / (B + 1)        (Phipson & Smyth 2010: never zero)

The test is valid where either null is. docs/calibration.md has its size and power in many settings, those included
in which it fails. The p-value alone proves nothing about learning: texts of one domain look alike, so frozen and hash
routers reach its floor too. The tables therefore also give the excess over those controls.

An estimate of information is biased upwards by chance. The null's mean is that bias: `information.information_bias`
has its second-order part from the spread of units within their domains, which no difference of the domains enters;
permuted labels show how much more than the second order the information has. The excess is unbiased whether or not
the domains differ.

Shape suffixes: B draws, U units of documents, D domains, S slots, V tokens, K observations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from speciate.analysis import draws, information
from speciate.analysis.draws import Integers, NullDraws
from speciate.analysis.specialisation import welch
from speciate.selection.tally import Array

TIE = 1e-9
"""Statistics that differ by less, relative to their size, are ties, since sums may be taken in another order."""
SHAPE_DRAWS = 99
"""Number of permutations by which the information's higher orders are judged."""
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Null:
    """An information, what chance alone would give it, and the p-value of no information, each of shape (K,)."""

    observed: Array
    mean: Array
    low: Array
    """Lower bound of the band that holds the null, in bits, and the upper one."""
    high: Array
    z: Array
    """(observed - mean) / standard deviation of the null; NaN where the null does not vary."""
    p_value: Array

    @property
    def excess(self) -> Array:
        """Return observed - mean: the information without the bias that chance alone gives it."""
        return self.observed - self.mean


def domain_null(counts_KUS: Array, drawn: NullDraws, band: float = 0.95) -> Null:
    """Test I(E;D) of K observations of the same units.

    Domains without a decision are left out. Where only one is left, it has no information, and p is 1. Where a domain
    has a single unit, its spread is unknown, so that mean, band and p are NaN.

    Args:
        counts_KUS: choices by observation, unit and slot.
        drawn: draws of these units.
        band: share of the null between `low` and `high`.
    """
    return _stack([_test(counts_US[:, None], drawn, band) for counts_US in counts_KUS])


def conditional_null(counts_UVS: Array, drawn: NullDraws) -> Null:
    """Test I(E;D|V), shapes (1,), for tokens V that every domain has; as `domain_null`, but without a band."""
    return _stack([_test(counts_UVS, drawn, None)])


def _stack(rows: list[tuple[float, ...]]) -> Null:
    return Null(*np.array(rows, dtype=np.float64).reshape(len(rows), 6).T)


def _test(counts_UVS: Array, drawn: NullDraws, band: float | None) -> tuple[float, ...]:
    """Return observed, mean, low, high, z and p_value of one observation."""
    decided_D = np.bincount(drawn.domain_U, weights=counts_UVS.sum(axis=(1, 2)))
    kept_U = decided_D[drawn.domain_U] > 0
    counts_UVS, drawn = counts_UVS[kept_U], drawn.of_units(kept_U)
    domains, domain_U = np.unique(drawn.domain_U, return_inverse=True)
    if len(domains) < 2:
        return 0.0, 0.0, 0.0, 0.0, NAN, 1.0
    sums_1DVS = draws.sums_by_label(domain_U[None], len(domains), counts_UVS)
    observed = float(information.conditional_information(sums_1DVS)[0])
    if np.bincount(domain_U).min() < 2:
        return observed, NAN, NAN, NAN, NAN, NAN
    label_BU = np.searchsorted(domains, drawn.label_BU)
    mean = information.information_bias(counts_UVS, domain_U) * _higher_orders(counts_UVS, label_BU, len(domains))
    low, high, deviation = (NAN, NAN, NAN) if band is None else _band(counts_UVS, domain_U, drawn.sign_BU, band)
    z = (observed - mean) / (deviation * mean) if deviation * mean > information.ROUNDING_BITS else NAN
    return observed, mean, low * mean, high * mean, z, _p_value(counts_UVS, domain_U, label_BU, drawn.sign_BU)


def _p_value(counts_UVS: Array, domain_U: Integers, label_BU: Integers, sign_BU: Array) -> float:
    """Return the larger p-value of the two nulls."""
    # with one token there is no leverage to speak of, and without the correction permuted labels are exact
    residuals = welch.find_residuals(counts_UVS, domain_U, correct_leverage=counts_UVS.shape[1] > 1)
    observed, member_DU = welch.observed_statistic(residuals), residuals.member_DU
    at_least = observed - TIE * observed

    def share(num_rows: int, draw_members: Callable[[slice], Array]) -> float:
        at_once = max(1, draws.SUMS_AT_ONCE // max(1, residuals.mean_DC.size))
        rows = [slice(max(1, start), start + at_once) for start in range(0, num_rows, at_once)]
        above = sum(int((welch.drawn_statistics(residuals, draw_members(row)) >= at_least).sum()) for row in rows)
        return (1 + above) / num_rows

    place_D1 = np.arange(len(member_DU))[:, None]
    by_label = share(len(label_BU), lambda row: (label_BU[row, None] == place_D1).astype(np.float64))
    return max(by_label, share(len(sign_BU), lambda row: sign_BU[row, None] * member_DU))


def _higher_orders(counts_UVS: Array, label_BU: Integers, num_domains: int) -> float:
    """Return the ratio of the information to its second-order approximation, as means over permuted labels."""
    exact, quadratic = 0.0, 0.0
    at_once = max(1, draws.SUMS_AT_ONCE // max(1, num_domains * counts_UVS[0].size))
    last = min(len(label_BU), SHAPE_DRAWS + 1)
    for start in range(1, last, at_once):
        sums_BDVS = draws.sums_by_label(label_BU[start : min(start + at_once, last)], num_domains, counts_UVS)
        exact += float(information.conditional_information(sums_BDVS).sum())
        quadratic += float(information.quadratic_information(sums_BDVS).sum())
    return exact / quadratic if quadratic > 0 else 1.0


def _band(counts_UVS: Array, domain_U: Integers, sign_BU: Array, band: float) -> tuple[float, float, float]:
    """Return the bounds and the standard deviation of the null, as multiples of its mean.

    The signs of the units' deviations from their own domain's shares are drawn, so that no difference of the domains
    widens the band.
    """
    counts_US = counts_UVS.sum(axis=1)
    member_DU = (domain_U == np.arange(domain_U.max() + 1)[:, None]).astype(np.float64)
    share_DS, _ = information.shares_by_domain(member_DU @ counts_US)
    total_DU = member_DU * counts_US.sum(axis=1)
    common_S = share_DS.mean(axis=0)
    deviation_US = counts_US - counts_US.sum(axis=1, keepdims=True) * share_DS[domain_U]
    deviation_US = deviation_US / total_DU.sum(axis=1)[domain_U][:, None]
    deviation_US = deviation_US / np.sqrt(np.where(common_S > 0, common_S, 1))
    if len(sign_BU) * member_DU.size <= draws.SUMS_AT_ONCE:
        mean_BDS = (sign_BU[1:, None] * member_DU) @ deviation_US
    else:  # one product for each domain: a product for each draw takes ten times as long where domains are many
        of_domain = [np.nonzero(domain_U == domain)[0] for domain in range(len(member_DU))]
        mean_BDS = np.stack([sign_BU[1:, units] @ deviation_US[units] for units in of_domain], axis=1)
    bits_B = ((mean_BDS - mean_BDS.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    mean = float(bits_B.mean())
    if mean <= 0:
        return 1.0, 1.0, 0.0
    low, high = np.quantile(bits_B / mean, [(1 - band) / 2, (1 + band) / 2])
    return float(low), float(high), float(bits_B.std(ddof=1)) / mean
