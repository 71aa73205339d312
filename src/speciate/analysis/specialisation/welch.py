"""Welch's statistic for units of documents: do domains choose slots alike, whatever their sizes and spreads?

Each unit u gives a vector of residuals, its choices minus those that the common shares p(e|v) expect,

    x_ue = sum over its decisions of (choice - p(e|v)),    Y_d = mean over the units of d, scaled by N_d,

so that without an effect every domain's mean is zero. A domain's spread s_d^2 is the mean squared distance of its units
from their mean, over all slots together: one number, so that few units suffice to estimate it. With weights
w_d = m_d / s_d^2 for m_d units,

    T = sum_d w_d |Y_d - Y|^2

where Y is the centre that the weights give (Welch 1951; in many dimensions Hamidi et al. 2019). A domain that spreads
more, because its units have fewer decisions or tastes of their own, counts less. T is computed anew, spreads included,
for every permutation of the labels, and for every pattern of signs.

Slots count by 1 / (p + 5 / n), with n the decisions of the domain that has fewest. For common slots that is the weight
which I(E;D) gives them; a slot of which fewer than five choices are expected, too few for a spread, counts less.

Shape suffixes: B draws, U units, D domains, V tokens (one where tokens do not matter), S slots, C = V S cells.
"""

from dataclasses import dataclass

import numpy as np

from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

FEW_CHOICES = 5.0
"""Expected choices below which a slot counts less."""
LEAST_SPREAD = 1e-9
"""Smallest spread of a domain, as a share of the units' mean square: that of an oracle's domains is zero."""
LARGEST_LEVERAGE = 0.8
"""A residual is enlarged by at most 1 / sqrt(1 - 0.8)."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """Residuals of the units about the shares that all domains have in common."""

    unit_UC: Array
    mean_DC: Array
    """Mean of each domain's units, before the correction for leverage."""
    root_DC: Array
    """sqrt(p(v|d)): how a shift of the common shares moves each domain's mean."""
    member_DU: Array
    """1 where a unit is of a domain."""

    @property
    def units_D(self) -> Array:
        """Return the number of units of each domain."""
        result: Array = self.member_DU.sum(axis=1)
        return result


def find_residuals(counts_UVS: Array, domain_U: Integers, correct_leverage: bool) -> Residuals:
    """Return the residuals of the units' choices.

    Args:
        counts_UVS: choices by unit, token and slot; every domain has at least two units, and at least one choice of
            each token.
        domain_U: domain of each unit, 0, 1, ...
        correct_leverage: whether to enlarge residuals by 1 / sqrt(1 - h). A token that occurs in few units pulls its
            estimated shares p(e|v) towards these units, by their share h of its occurrences.
    """
    member_DU = (domain_U == np.arange(domain_U.max() + 1)[:, None]).astype(np.float64)
    units_D = member_DU.sum(axis=1)
    counts_DVS = np.tensordot(member_DU, counts_UVS, axes=1)
    counts_DV, counts_UV = counts_DVS.sum(axis=-1), counts_UVS.sum(axis=-1)
    token_DV = counts_DV / counts_DV.sum(axis=1, keepdims=True)
    scale_UV = (units_D[:, None] * np.sqrt(token_DV) / counts_DV)[domain_U]

    def about_common(weight_D: Array) -> tuple[Array, Array, Array]:
        pull_DV = weight_D[:, None] * token_DV
        pull_DV = pull_DV / pull_DV.sum(axis=0)
        common_VS = (pull_DV[..., None] * counts_DVS / counts_DV[..., None]).sum(axis=0)
        leverage_UV = pull_DV[domain_U] * counts_UV / counts_DV[domain_U]
        return common_VS, counts_UVS - counts_UV[..., None] * common_VS, leverage_UV

    common_VS, residual_UVS, leverage_UV = about_common(np.ones(len(units_D)))
    kernel_VS = common_VS + FEW_CHOICES / counts_DV.min(axis=0)[:, None]
    scale_UVS = scale_UV[..., None] / np.sqrt(kernel_VS)

    def enlarged(residual_UVS: Array, leverage_UV: Array) -> Array:
        left_UV = np.maximum(1 - leverage_UV, 1 - LARGEST_LEVERAGE) if correct_leverage else np.ones_like(leverage_UV)
        flat: Array = (residual_UVS * scale_UVS / np.sqrt(left_UV)[..., None]).reshape(len(domain_U), -1)
        return flat

    unit_UC = enlarged(residual_UVS, leverage_UV)
    spread_D = _spread(member_DU @ (unit_UC**2).sum(axis=1), member_DU @ unit_UC / units_D[:, None], units_D)
    _, residual_UVS, leverage_UV = about_common(units_D / spread_D)
    return Residuals(
        unit_UC=enlarged(residual_UVS, leverage_UV),
        mean_DC=member_DU @ (residual_UVS * scale_UVS).reshape(len(domain_U), -1) / units_D[:, None],
        root_DC=np.repeat(np.sqrt(token_DV), counts_UVS.shape[-1], axis=1),
        member_DU=member_DU,
    )


def _spread(square_D: Array, mean_DC: Array, units_D: Array) -> Array:
    """Return s_d^2 from the sums of squares of the domains' units, and their means: (..., D)."""
    spread_D = (square_D - units_D * np.vecdot(mean_DC, mean_DC)) / (units_D - 1)
    least = LEAST_SPREAD * square_D.sum(axis=-1, keepdims=True) / units_D.sum()
    result: Array = np.where(least > 0, np.maximum(spread_D, least), 1.0)  # units without residuals differ in nothing
    return result


def _distance(mean_DC: Array, spread_D: Array, residuals: Residuals) -> Array:
    """Return T of the domains' means about the centre that their weights give: (..., D, C) -> (...)."""
    weight_D = residuals.units_D / spread_D
    weight_D = weight_D / weight_D.sum(axis=-1, keepdims=True)  # T is compared with itself alone, so its scale is free
    scale = (residuals.units_D / spread_D).sum(axis=-1)
    pulled_C = np.einsum("...d,dc,...dc->...c", weight_D, residuals.root_DC, mean_DC)
    own_C = weight_D @ residuals.root_DC**2
    about = (weight_D * np.vecdot(mean_DC, mean_DC)).sum(axis=-1) - (pulled_C**2 / own_C).sum(axis=-1)
    result: Array = scale * np.maximum(about, 0)
    return result


def observed_statistic(residuals: Residuals) -> float:
    """Return T of the true domains."""
    member_DU, units_D = residuals.member_DU, residuals.units_D
    mean_DC = member_DU @ residuals.unit_UC / units_D[:, None]
    spread_D = _spread(member_DU @ (residuals.unit_UC**2).sum(axis=1), mean_DC, units_D)
    return float(_distance(residuals.mean_DC, spread_D, residuals))


def drawn_statistics(residuals: Residuals, member_BDU: Array) -> Array:
    """Return T for draws of which unit counts for which domain, and with which sign, (B,)."""
    # one large product is several times as fast as one for each draw
    flat_XC = member_BDU.reshape(-1, member_BDU.shape[-1]) @ residuals.unit_UC
    mean_BDC = flat_XC.reshape(*member_BDU.shape[:-1], -1) / residuals.units_D[:, None]
    square_BD = np.abs(member_BDU) @ (residuals.unit_UC**2).sum(axis=1)
    return _distance(mean_BDC, _spread(square_BD, mean_BDC, residuals.units_D), residuals)
