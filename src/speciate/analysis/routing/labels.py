"""What a selector's choices tell about the user's labels, beyond chance and beyond routers that were never trained.

Shape suffixes: B draws, G groups, U units, D labels, S slots, R untrained routers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from speciate.analysis import draws, information, statistics
from speciate.analysis.routing.grouping import DocumentGroups, LabelDesign
from speciate.analysis.routing.loads import GroupedSelector
from speciate.analysis.specialisation import nulls
from speciate.selection.tally import Array

NAN = float("nan")
FEW_DRAWS = 99
"""Permutations where the null's mean is asked for, and no p-value."""
TOKEN_CONTROL = "token"
"""A control whose name has this word follows the identity of the token; it is no random router."""


@dataclass(frozen=True, eq=False)
class LabelTest:
    """A selector's information about the labels, and what its bootstrap drew."""

    columns: dict[str, float]
    design: LabelDesign
    unit_US: Array
    """Choices by unit of the tested labels."""
    drawn_B: Array | None
    """Bootstrap draws of the information over units, paired with those of other routers on the same texts."""

    @property
    def excess(self) -> float:
        return self.columns["excess_bits"]


def label_test(selector: GroupedSelector, groups: DocumentGroups) -> LabelTest:
    """Test whether a selector's choices tell the labels.

    Labels that cannot be tested are left out, unless none can: then the information is that of all labels, without a
    null.
    """
    settings = groups.settings
    design = groups.design(selector.tally.decisions_G)
    unit_US = design.units.sum(selector.tally.chosen_GS)
    if not design.can_test:
        counts_DS = groups.label_sums(selector.tally.chosen_GS)
        known = int((counts_DS.sum(axis=1) > 0).sum()) > 1
        bits = float(information.domain_information(counts_DS)) if known else NAN
        return LabelTest(_columns(bits), design, unit_US, None)
    null = nulls.domain_null(unit_US[None], design.drawn, settings.confidence)
    drawn_B = resampled_information(unit_US, design, groups)
    excess = float(null.excess[0])
    low, high = _interval(excess, drawn_B, settings.confidence, _degrees(selector, design, groups))
    columns = _columns(float(null.observed[0])) | {
        "units": float(len(design.units.domain_U)),
        "null_mean_bits": float(null.mean[0]),
        "null_high_bits": float(null.high[0]),
        "excess_bits": excess,
        "excess_low_bits": low,
        "excess_high_bits": high,
        "p_value": float(null.p_value[0]),
    }
    return LabelTest(columns, design, unit_US, drawn_B)


def _columns(bits: float) -> dict[str, float]:
    missing = ("null_mean_bits", "null_high_bits", "excess_bits", "excess_low_bits", "excess_high_bits", "p_value")
    return {"units": 0.0, "information_bits": bits, **dict.fromkeys(missing, NAN)}


def _degrees(selector: GroupedSelector, design: LabelDesign, groups: DocumentGroups) -> float:
    size_G = np.where(design.units.unit_G >= 0, selector.tally.decisions_G, 0.0)
    return groups.degrees(size_G, groups.label_strata())


def resampled_information(unit_US: Array, design: LabelDesign, groups: DocumentGroups) -> Array:
    """Return bootstrap draws of I(E;D) with units drawn within labels, biased as every such draw is, (B,)."""
    domain_U = design.units.domain_U
    times_BU = groups.resamples(domain_U)
    sums_BDS = draws.sums_by_resample(times_BU, domain_U, len(design.tested), unit_US)
    result: Array = information.domain_information(sums_BDS)
    return result


def _interval(estimate: float, drawn_B: Array, confidence: float, degrees: float) -> tuple[float, float]:
    """Return `statistics.centred_interval`, as wide as few documents need it."""
    tail = statistics.expanded_tail(confidence, degrees)
    if math.isnan(tail):
        return NAN, NAN
    return statistics.centred_interval(estimate, drawn_B, 1 - 2 * tail)


def excess_bits(unit_US: Array, design: LabelDesign, groups: DocumentGroups) -> float:
    """Return the information of choices by unit beyond chance."""
    drawn = draws.null_draws(design.units.domain_U, FEW_DRAWS, groups.settings.seed)
    return float(nulls.domain_null(unit_US[None], drawn).excess[0])


SHADOW_COLUMNS = (
    *("shadow_bits", "shadow_high_bits", "beyond_shadow_bits", "beyond_shadow_low_bits", "beyond_shadow_p"),
)


def shadow_columns(
    test: LabelTest, shadows: Sequence[tuple[str, GroupedSelector]], groups: DocumentGroups
) -> dict[str, float]:
    """Compare a router's excess with that of routers that were never trained, on the same hidden states.

    A router that training has not changed is one more of the R random ones. Its excess then lies about their mean with
    a variance of s^2 (1 + 1/R), and what the texts make of the difference adds to that (paired document bootstrap):
    the t test of one new observation. A control by the token's identity is no random router; it must be exceeded as
    well.
    """
    columns = dict.fromkeys(SHADOW_COLUMNS, NAN)
    if not shadows or test.drawn_B is None or math.isnan(test.excess):
        return columns
    random = [shadow for name, shadow in shadows if TOKEN_CONTROL not in name.lower()]
    by_token = [shadow for name, shadow in shadows if TOKEN_CONTROL in name.lower()]
    found = [_shadow(shadow, test, groups) for shadow in random]
    p_values = []
    if found:
        excess_R = np.array([bits for bits, _ in found])
        beyond = test.excess - float(excess_R.mean())
        of_texts = float(np.std(test.drawn_B - np.mean([drawn_B for _, drawn_B in found], axis=0), ddof=1))
        count = len(found)
        between = float(excess_R.var(ddof=1)) * (1 + 1 / count) if count > 1 else NAN
        error = math.sqrt(between + of_texts**2) if count > 1 else NAN
        low = NAN
        if count > 1:
            low = beyond - float(stdtrit(count - 1, groups.settings.confidence)) * error
            p_values.append(float(stdtr(count - 1, -beyond / error)) if error > 0 else float(beyond <= 0))
        columns |= {
            "shadow_bits": float(excess_R.mean()),
            "shadow_high_bits": float(excess_R.max()),
            "beyond_shadow_bits": beyond,
            "beyond_shadow_low_bits": low,
        }
    for shadow in by_token:
        bits, drawn_B = _shadow(shadow, test, groups)
        error = float(np.std(test.drawn_B - drawn_B, ddof=1))
        if p_values:
            beyond = test.excess - bits
            p_values.append(float(ndtr(-beyond / error)) if error > 0 else float(beyond <= 0))
    return columns | {"beyond_shadow_p": max(p_values, default=NAN)}


def _shadow(shadow: GroupedSelector, test: LabelTest, groups: DocumentGroups) -> tuple[float, Array]:
    unit_US = test.design.units.sum(shadow.tally.chosen_GS)
    return excess_bits(unit_US, test.design, groups), resampled_information(unit_US, test.design, groups)
