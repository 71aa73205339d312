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


def bin_counts(choices: Choices, bin_N: Integers, num_bins: int, tokens: SampledTokens) -> Array:
    """Return choices by group, bin and slot, (G, X, S); a bin of -1 is left out."""
    cell_N = np.where(bin_N >= 0, tokens.group_P[choices.at_N] * num_bins + bin_N, -1)
    counts = choices.count(cell_N, tokens.num_groups * num_bins)
    return counts.reshape(tokens.num_groups, num_bins, choices.num_slots)


def within_documents(counts_GXS: Array, groups: DocumentGroups) -> tuple[float, float]:
    """Return (bits beyond chance, p-value) of choices by group, bin and slot; NaN where there is nothing to compare."""
    used_X = counts_GXS.sum(axis=(0, 2)) >= FEWEST_IN_BIN
    counts_GXS = counts_GXS[:, used_X]
    units = groups.units(counts_GXS.sum(axis=(1, 2)))
    num_units = len(units.domain_U)
    if counts_GXS.shape[1] < 2 or num_units < FEWEST_UNITS:
        return NAN, NAN
    decisions_GX = counts_GXS.sum(axis=2)
    total_G = decisions_GX.sum(axis=1)
    share_GS = counts_GXS.sum(axis=1) / np.where(total_G > 0, total_G, 1)[:, None]
    residual_UXS = units.sum(counts_GXS - decisions_GX[..., None] * share_GS[:, None])
    decisions_X, share_S = decisions_GX.sum(axis=0), counts_GXS.sum(axis=(0, 1)) / total_G.sum()
    scale_XS = 1 / np.sqrt(decisions_X[:, None] * np.where(share_S > 0, share_S, 1))
    flat_UC = (residual_UXS * scale_XS).reshape(num_units, -1)
    settings = groups.settings
    coin_BU = draws.generator(settings.seed, "signs within").integers(0, 2, (settings.permutations, num_units))
    drawn_B = (((1 - 2 * coin_BU.astype(np.float64)) @ flat_UC) ** 2).sum(axis=1)
    observed = float((flat_UC.sum(axis=0) ** 2).sum())
    bits = (observed - float(drawn_B.mean())) / (2 * information.LN2 * float(total_G.sum()))
    return bits, (1 + int((drawn_B >= observed * (1 - TIE)).sum())) / (1 + settings.permutations)
