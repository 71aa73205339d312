"""Do choices depend on something that varies within documents: a token's position, or its type?

Each document is its own control. x_gbe are its choices in bin b minus what its own shares expect, so they are 0 on
average where the bin does not matter, whatever the document is about. With n_b decisions in bin b of n in all,

    I = sum_be (sum_g x_gbe)^2 / (n_b p_e) / (2 n ln 2)         (the second-order approximation of I(expert; bin))

Under the null the sign of each unit's x is a coin toss (as in `nulls`; Cameron, Gelbach & Miller 2008); the mean over
the draws is the bias, and is subtracted.

Shape suffixes: N tokens with a decision, B draws, G groups, U units, X bins, S slots.
"""

import numpy as np

from speciate.analysis import draws, information
from speciate.analysis.draws import Integers
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.analysis.routing.single_tokens.sample import Choices, SampledTokens
from speciate.selection.tally import Array

NAN = float("nan")
FEWEST_UNITS = 5
FEWEST_IN_BIN = 100
"""Tokens of a bin; rarer positions are joined to the bin before, rarer types left out of the test."""
TIE = 1e-9


def position_bins(position_P: Integers) -> tuple[Integers, Integers]:
    """Return the bin of each position, and each bin's first position: 0, 1, 2, 4, 8, ...

    A bin with few tokens is joined to the one before it.
    """
    octave_P = np.frexp(position_P.astype(np.float64))[1].astype(np.int64)  # 0 -> 0, 1 -> 1, 2 and 3 -> 2, ...
    count = np.bincount(octave_P)
    starts: list[int] = []
    place = np.zeros(len(count), dtype=np.int64)
    for octave, number in enumerate(count.tolist()):
        if not starts or number >= FEWEST_IN_BIN:
            starts.append(0 if octave == 0 else 2 ** (octave - 1))
        place[octave] = len(starts) - 1
    return place[octave_P], np.array(starts, dtype=np.int64)


def within_documents(
    choices: Choices, bin_N: Integers, tokens: SampledTokens, groups: DocumentGroups
) -> tuple[float, float, Array]:
    """Test whether choices depend on a bin within documents; a bin of -1 is left out.

    Returns:
        bits beyond chance, p-value (both NaN where there is nothing to compare), and the choices by bin and slot.
    """
    num_bins, group_N = int(bin_N.max(initial=-1)) + 1, tokens.group_P[choices.at_N]
    if not num_bins:
        return NAN, NAN, np.zeros((0, choices.num_slots))
    counts_XS = choices.count(bin_N, num_bins)
    used_X = counts_XS.sum(axis=1) >= FEWEST_IN_BIN
    bin_N = np.where(np.append(used_X, False)[bin_N], bin_N, -1)
    cell_N = np.where(bin_N >= 0, group_N * num_bins + bin_N, tokens.num_groups * num_bins)
    decisions_GX = np.bincount(cell_N, minlength=tokens.num_groups * num_bins + 1)[:-1].reshape(-1, num_bins)
    total_G = decisions_GX.sum(axis=1).astype(np.float64)
    units = groups.units(total_G)
    num_units = len(units.domain_U)
    if used_X.sum() < 2 or num_units < FEWEST_UNITS:
        return NAN, NAN, counts_XS
    unit_N = units.unit_G[group_N]
    own_GS = choices.count(np.where(bin_N >= 0, group_N, -1), tokens.num_groups)
    share_GS = own_GS / np.where(total_G > 0, total_G, 1)[:, None]
    counts_UXS = choices.count(np.where(bin_N >= 0, unit_N * num_bins + bin_N, -1), num_units * num_bins)
    residual_UXS = counts_UXS.reshape(num_units, num_bins, -1)
    for unit in range(num_units):
        of_unit = units.unit_G == unit
        residual_UXS[unit] -= decisions_GX[of_unit].T @ share_GS[of_unit]
    decisions_X, share_S = np.maximum(decisions_GX.sum(axis=0), 1), own_GS.sum(axis=0) / total_G.sum()
    scale_XS = 1 / np.sqrt(decisions_X[:, None] * np.where(share_S > 0, share_S, 1))
    flat_UC = (residual_UXS * scale_XS).reshape(num_units, -1)
    settings = groups.settings
    coin_BU = draws.generator(settings.seed, "signs within").integers(0, 2, (settings.permutations, num_units))
    drawn_B = (((1 - 2 * coin_BU.astype(np.float64)) @ flat_UC) ** 2).sum(axis=1)
    observed = float((flat_UC.sum(axis=0) ** 2).sum())
    bits = (observed - float(drawn_B.mean())) / (2 * information.LN2 * float(total_G.sum()))
    at_least = int((drawn_B >= observed * (1 - TIE)).sum())
    return bits, (1 + at_least) / (1 + settings.permutations), counts_XS
