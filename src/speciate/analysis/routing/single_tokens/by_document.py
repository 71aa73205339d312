"""Do choices differ between documents at all, by more than two halves of one document do?

The first half of each document and its second half give shares about the mean of all first and of all second halves.
Their products over documents estimate, without bias, how far documents differ (second-order approximation):

    I = mean_g sum_e (f1_ge - f1_e) (f2_ge - f2_e) / p_e / (2 ln 2)

Under the null a first half has no more in common with its own second half than with another document's. All pairings
are permuted, and their mean is subtracted.

Shape suffixes: B draws, G groups, S slots.
"""

import numpy as np

from speciate.analysis import draws, information
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.analysis.routing.single_tokens.sample import Choices, SampledTokens
from speciate.analysis.routing.single_tokens.within import TIE
from speciate.selection.tally import Array

NAN = float("nan")
FEWEST_OF_HALF = 8
"""Tokens that each half of a document must have."""
FEWEST_DOCUMENTS = 5
MOST_DOCUMENTS = 1000


def document_information(choices: Choices, tokens: SampledTokens, groups: DocumentGroups) -> tuple[float, float]:
    """Return (bits beyond chance, p-value); NaN with fewer than five documents."""
    second_N = tokens.second_half_P[choices.at_N].astype(np.int64)
    counts = choices.count(tokens.group_P[choices.at_N] * 2 + second_N, tokens.num_groups * 2)
    counts_GHS = counts.reshape(tokens.num_groups, 2, choices.num_slots)
    size_GH = counts_GHS.sum(axis=2)
    (kept,) = np.nonzero((size_GH >= FEWEST_OF_HALF).all(axis=1))
    if len(kept) < FEWEST_DOCUMENTS:
        return NAN, NAN
    settings = groups.settings
    if len(kept) > MOST_DOCUMENTS:
        kept = np.sort(draws.generator(settings.seed, "halved documents").permutation(kept)[:MOST_DOCUMENTS])
    share_GHS = counts_GHS[kept] / size_GH[kept][..., None]
    mean_HS = share_GHS.mean(axis=0)
    common_S = mean_HS.mean(axis=0)
    about_GHS = (share_GHS - mean_HS) / np.sqrt(np.where(common_S > 0, common_S, 1))
    product_GG = about_GHS[:, 0] @ about_GHS[:, 1].T
    observed = float(np.trace(product_GG)) / len(kept)
    drawn_B = _paired_at_random(product_GG, settings.permutations, settings.seed)
    bits = (observed - float(drawn_B.mean())) / (2 * information.LN2)
    above = int((drawn_B >= observed - TIE * abs(observed)).sum())
    return bits, (1 + above) / (1 + settings.permutations)


def _paired_at_random(product_GG: Array, num_draws: int, seed: int) -> Array:
    number = len(product_GG)
    draw = draws.generator(seed, "pairings")
    rows = np.arange(number)
    return np.array([product_GG[rows, draw.permutation(number)].mean() for _ in range(num_draws)])
