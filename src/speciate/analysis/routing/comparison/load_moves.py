"""How far the loads of two records lie apart, and which experts moved.

    divergence   Jensen-Shannon divergence of the loads, bits
    null         the same of two random halves of one record's documents, halved: halves are half as large
    p            the two records of each unit of documents swapped at random: of a difference that has no direction

Shape suffixes: B draws, Q splits, G groups, U units, S slots (experts).
"""

from typing import Any

import numpy as np
import pandas as pd

from speciate.analysis import draws, information, load, statistics
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.selection.tally import Array

NAN = float("nan")
FEWEST_UNITS = 5
HALVES = 99
Row = dict[str, Any]


def load_divergence(one: Array, other: Array) -> Array:
    """Return the Jensen-Shannon divergence of two loads, in bits; sums of choices by slot in the last axis."""
    return information.domain_information(np.stack([one, other], axis=-2))


def compare_loads(
    one_GS: Array, other_GS: Array, groups: DocumentGroups
) -> tuple[Row, pd.DataFrame, tuple[Array, Array] | None]:
    settings = groups.settings
    size_G = one_GS.sum(axis=1) + other_GS.sum(axis=1)
    share_S, other_S = load.shares(one_GS.sum(axis=0)), load.shares(other_GS.sum(axis=0))
    moved_S = other_S - share_S
    most = int(np.abs(moved_S).argmax())
    row: Row = {
        "divergence_bits": float(load_divergence(one_GS.sum(axis=0), other_GS.sum(axis=0))),
        **dict.fromkeys(("divergence_low", "divergence_high", "null_bits", "p_value"), NAN),
        "moved_expert": most,
        "moved_share": float(moved_S[most]),
    }
    moves = pd.DataFrame(
        {
            "expert": np.arange(len(share_S)),
            "share": share_S,
            "other_share": other_S,
            "moved": moved_S,
            "moved_low": np.nan,
            "moved_high": np.nan,
        }
    )
    stratum_G = groups.load_strata()
    tail = statistics.expanded_tail(settings.confidence, groups.degrees(size_G, stratum_G))
    if np.isnan(tail):
        return row, moves, None
    times_BG = groups.resamples(stratum_G)
    one_BS, other_BS = times_BG @ one_GS, times_BG @ other_GS
    drawn_B = load_divergence(one_BS, other_BS)
    # draws repeat documents, and so diverge more: the common shift is taken out
    low, high = np.quantile(drawn_B - drawn_B.mean() + row["divergence_bits"], [tail, 1 - tail])
    row["divergence_low"], row["divergence_high"] = max(float(low), 0.0), float(high)
    row["null_bits"] = _halves_bits(one_GS, groups)
    moved_BS = load.shares(other_BS) - load.shares(one_BS)
    moves["moved_low"], moves["moved_high"] = np.quantile(moved_BS, [tail, 1 - tail], axis=0)
    units = groups.units(size_G)
    if len(units.domain_U) < FEWEST_UNITS:
        return row, moves, None
    # each unit's part of the difference of the shares, whose sign a swap of the records turns
    difference_US = units.sum(other_GS / other_GS.sum() - one_GS / one_GS.sum())
    coin_BU = draws.generator(settings.seed, "swaps").integers(0, 2, (settings.permutations, len(units.domain_U)))
    signed_BS = (1 - 2 * coin_BU.astype(np.float64)) @ difference_US
    scale_S = 1 / np.sqrt(np.maximum(share_S + other_S, 1e-12))
    size_B = ((signed_BS * scale_S) ** 2).sum(axis=1)
    observed = float(((moved_S * scale_S) ** 2).sum())
    row["p_value"] = (1 + int((size_B >= observed * (1 - 1e-9)).sum())) / (1 + len(size_B)) if observed > 0 else 1.0
    spread_S = np.sqrt((difference_US**2).sum(axis=0))
    scale_S = np.divide(1.0, spread_S, out=np.zeros_like(spread_S), where=spread_S > 0)
    return row, moves, (np.abs(moved_S) * scale_S, np.abs(signed_BS) * scale_S)


def _halves_bits(chosen_GS: Array, groups: DocumentGroups) -> float:
    """Return the divergence that chance gives two samples of as many documents: half of that of two halves of one."""
    one_G = np.ones(len(chosen_GS), dtype=np.bool_)
    if len(chosen_GS) < 2:
        return NAN
    second_QG = groups.halves(one_G, HALVES)
    return float(load_divergence((1 - second_QG) @ chosen_GS, second_QG @ chosen_GS).mean()) / 2
