"""Which experts prefer which labels: lifts with intervals, and a test of each expert and label.

lift = f_{e|d} / mean_d f_{e|d}. The test of expert e and label d compares the mean of the label's units with that of
the other labels, in units of its standard error (Welch 1947):

    T_de = (Y_de - mean_{c != d} Y_ce) / sqrt(V_de + sum_{c != d} V_ce / (D - 1)^2),    V = s^2 / m over m units

Spreads are computed anew for every permutation of the units' labels, so that labels of unequal sizes and spreads do not
pass for preferences. V is at least what independent tokens give, for experts that few tokens choose. All experts and
labels of a layer and draw are one matrix product; `pooled` has the q-values.

Shape suffixes: B draws, U units, D labels, S slots (experts), R untrained routers.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from speciate.analysis import draws, information, statistics
from speciate.analysis.draws import Integers
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.analysis.routing.labels import LabelTest
from speciate.analysis.routing.loads import GroupedSelector
from speciate.analysis.specialisation import welch
from speciate.selection.tally import Array

NUMBERS_AT_ONCE = 12_000_000
SIMILAR_LOAD = 2.0
"""An untrained router's expert has the same size as one whose share is within this factor."""


def statistics_of_labels(
    unit_US: Array, domain_U: Integers, label_BU: Integers, num_chosen: float
) -> tuple[Array, Array]:
    """Return |T| of each label and expert, observed (D, S) and for the permuted labels (B, D, S).

    Args:
        unit_US: choices by unit and slot; one decision spreads 1 over its k slots.
        domain_U: label of each unit, 0, 1, ...; each has two units.
        label_BU: labels of the units by draw; row 0 is `domain_U`.
        num_chosen: k.
    """
    residuals = welch.find_residuals(unit_US[:, None], domain_U, correct_leverage=False)
    decisions_D = residuals.member_DU @ unit_US.sum(axis=1)
    kernel_S = _kernel(unit_US, residuals.member_DU)
    share_S = (residuals.member_DU @ unit_US / decisions_D[:, None]).mean(axis=0)
    # a token chooses the expert with probability k f, and counts 1/k where it does
    alone_DS = np.maximum(share_S * (1 - num_chosen * share_S), 0) / num_chosen / decisions_D[:, None] / kernel_S
    units_D1 = residuals.units_D[:, None]
    values_UC = np.concatenate([residuals.unit_UC, residuals.unit_UC**2], axis=1)
    num_slots, num_labels = unit_US.shape[1], len(units_D1)
    at_once = max(1, NUMBERS_AT_ONCE // max(1, num_labels * max(len(unit_US), 4 * num_slots)))
    parts = []
    for start in range(0, len(label_BU), at_once):
        sums_BDC = draws.sums_by_label(label_BU[start : start + at_once], num_labels, values_UC)
        mean_BDS = sums_BDC[..., :num_slots] / units_D1
        variance_BDS = (sums_BDC[..., num_slots:] - units_D1 * mean_BDS**2) / (units_D1 - 1) / units_D1
        variance_BDS = np.maximum(variance_BDS, alone_DS)
        parts.append(_contrast(mean_BDS, variance_BDS))
    all_BDS = np.concatenate(parts)
    return all_BDS[0], all_BDS[1:]


def _kernel(unit_US: Array, member_DU: Array) -> Array:
    """Return the scale by which `welch.find_residuals` weighs the squares of each slot."""
    counts_DS = member_DU @ unit_US
    total_D = counts_DS.sum(axis=1)
    common_S = (counts_DS / total_D[:, None]).mean(axis=0)
    result: Array = common_S + welch.FEW_CHOICES / total_D.min()
    return result


def _contrast(mean_BDS: Array, variance_BDS: Array) -> Array:
    others = mean_BDS.shape[1] - 1
    difference_BDS = mean_BDS - (mean_BDS.sum(axis=1, keepdims=True) - mean_BDS) / others
    error_BDS = variance_BDS + (variance_BDS.sum(axis=1, keepdims=True) - variance_BDS) / others**2
    result: Array = np.abs(difference_BDS) / np.sqrt(np.where(error_BDS > 0, error_BDS, np.inf))
    return result


def lift_matrix(counts_DS: Array) -> tuple[Array, Array]:
    """Return (f_{e|d}, lift) of choices by label and slot; NaN where there is none."""
    share_DS, weight_D = information.shares_by_domain(counts_DS)
    share_DS = np.where(weight_D[..., None] > 0, share_DS, np.nan)
    mean_S = (np.nan_to_num(share_DS) * weight_D[..., None]).sum(axis=-2, keepdims=True)
    return share_DS, np.divide(share_DS, mean_S, out=np.full_like(share_DS, np.nan), where=mean_S > 0)


def lift_bounds(selector: GroupedSelector, groups: DocumentGroups) -> tuple[Array, Array]:
    """Return bounds of the lifts over documents, each (D, S); NaN for a label with a single group."""
    chosen_GS, label_G = selector.tally.chosen_GS, groups.label_G
    times_BG = groups.resamples(groups.label_strata())
    sums_BDS = draws.sums_by_resample(times_BG, label_G, len(groups.labels), chosen_GS)
    _, lift_BDS = lift_matrix(sums_BDS)
    low_DS, high_DS = np.full((2, *lift_BDS.shape[1:]), np.nan)
    for label in range(len(groups.labels)):
        size_G = np.where(label_G == label, selector.tally.decisions_G, 0.0)
        number = statistics.effective_number(size_G[size_G > 0]) if (size_G > 0).any() else 0.0
        tail = statistics.expanded_tail(groups.settings.confidence, number)
        if not math.isnan(tail):
            low_DS[label], high_DS[label] = np.quantile(lift_BDS[:, label], [tail, 1 - tail], axis=0)
    return low_DS, high_DS


def placebo_lifts(test: LabelTest, num_labels: int) -> Array:
    """Return the lifts with the labels of the units shuffled once, (D, S)."""
    design, result = test.design, np.full((num_labels, test.unit_US.shape[1]), np.nan)
    if design.can_test:
        sums_DS = draws.sums_by_label(design.drawn.label_BU[1:2], len(design.tested), test.unit_US)[0]
        result[design.tested] = lift_matrix(sums_DS)[1]
    return result


def shadow_lifts(
    selector: GroupedSelector, lift_DS: Array, shadows: Sequence[GroupedSelector], groups: DocumentGroups
) -> Array:
    """Return the most extreme lift, on the same side of 1, among untrained routers' experts of similar load, (D, S)."""
    if not shadows:
        return np.full_like(lift_DS, np.nan)
    sums = [groups.label_sums(shadow.tally.chosen_GS) for shadow in shadows]
    lift_DX = np.concatenate([lift_matrix(counts_DS)[1] for counts_DS in sums], axis=1)
    load_X = np.concatenate([shadow.share_S for shadow in shadows])
    result = np.full_like(lift_DS, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance_SX = np.abs(np.log(selector.share_S[:, None] / load_X))
    distance_SX[np.isnan(distance_SX)] = np.inf
    for slot, distance_X in enumerate(distance_SX):
        near_X = distance_X <= max(math.log(SIMILAR_LOAD), float(distance_X.min()))
        of_near = lift_DX[:, near_X]
        if np.isfinite(of_near).any():
            above, below = np.nanmax(of_near, axis=1), np.nanmin(of_near, axis=1)
            result[:, slot] = np.where(lift_DS[:, slot] >= 1, above, below)
    return result


def lifts_rows(
    selector: GroupedSelector,
    groups: DocumentGroups,
    test: LabelTest,
    *,
    token_DS: Array,
    shadows: Sequence[GroupedSelector],
) -> pd.DataFrame:
    """Return rows of table `lifts`, by label and expert, but for the p- and q-values.

    Args:
        selector: the choices.
        groups: their groups and labels.
        test: the test of the labels.
        token_DS: the lifts that the identity of the tokens predicts; NaN where unknown.
        shadows: untrained routers on the same hidden states.
    """
    share_DS, lift_DS = lift_matrix(groups.label_sums(selector.tally.chosen_GS))
    low_DS, high_DS = lift_bounds(selector, groups)
    slots = np.arange(selector.num_slots)
    return pd.DataFrame(
        {
            "expert": np.tile(slots, len(groups.labels)),
            "label": np.repeat(np.array(groups.labels, dtype=object), len(slots)),
            "share": share_DS.ravel(),
            "lift": lift_DS.ravel(),
            "lift_low": low_DS.ravel(),
            "lift_high": high_DS.ravel(),
            "p_value": np.nan,
            "q_value": np.nan,
            "token_lift": token_DS.ravel(),
            "shadow_lift": shadow_lifts(selector, lift_DS, shadows, groups).ravel(),
            "placebo_lift": placebo_lifts(test, len(groups.labels)).ravel(),
        }
    )
