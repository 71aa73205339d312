"""Which pairs of experts the same tokens choose, more or less often than the experts' loads alone would make them.

The expected number is that of `subsets`. The test has documents as units: x_u is a unit's number of tokens that chose
both, minus what is expected of its tokens, and minus what its own loads explain of that (which is 0 in sum). Then
|sum x_u| / sqrt(sum x_u^2) is compared with its values when the signs of the units are drawn. The sum of squares is at
least what independent tokens give, for pairs that are rare. Documents whose loads differ are part of the effect:
experts that the same documents use are chosen together, and the loads of all texts do not explain it.

Shape suffixes: N tokens with a decision, B draws, U units, S slots, T pairs.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from speciate.analysis import draws
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.analysis.routing.single_tokens import subsets
from speciate.analysis.routing.single_tokens.sample import Choices, SampledTokens
from speciate.selection.tally import Array

FEWEST_UNITS = 5
FEWEST_EXPECTED = 20.0
"""Tokens that must be expected to choose both of two experts for the pair to be tested."""
MOST_ROWS = 2016
"""Pairs of a layer that the table keeps, the most extreme first: all of 64 experts."""


@dataclass(frozen=True, eq=False)
class PairTest:
    """The pairs of one layer with their test."""

    rows: pd.DataFrame
    """expert, other, together, expected, ratio; all pairs."""
    observed_T: Array
    """|statistic|; NaN for a pair that is not tested."""
    signed_UT: Array
    """What each unit adds to the statistic, but for its sign."""
    sign_BU: Array

    def draw(self, block: slice) -> Array:
        """Return the drawn statistics of some of the pairs, (B, pairs)."""
        result: Array = np.abs(self.sign_BU @ self.signed_UT[:, block])
        return result


def pair_test(choices: Choices, tokens: SampledTokens, groups: DocumentGroups) -> PairTest | None:
    """Count all pairs of experts; None where no token chooses two, or where all choose all."""
    if choices.choice_NK.shape[1] < 2 or not len(choices.at_N):
        return None
    group_G = np.bincount(tokens.group_P[choices.at_N], minlength=tokens.num_groups).astype(np.float64)
    units = groups.units(group_G)
    unit_N = units.unit_G[tokens.group_P[choices.at_N]]
    num_units = len(units.domain_U)
    size_J = np.bincount(choices.number_N) / len(choices.at_N)
    if len(size_J) < 3 or size_J[choices.num_slots :].sum() == 1:
        return None
    together_USS = count_together(choices, unit_N, num_units)
    first_T, second_T = np.triu_indices(choices.num_slots, 1)
    pair_UT = together_USS[:, first_T, second_T]
    took_US = np.einsum("uss->us", together_USS)
    tokens_U = np.bincount(unit_N, minlength=num_units).astype(np.float64)
    load_S = took_US.sum(axis=0) / tokens_U.sum()
    chance_T = subsets.pair_probabilities(load_S, size_J)[first_T, second_T]
    together_T, expected_T = pair_UT.sum(axis=0), chance_T * tokens_U.sum()
    possible_T = np.minimum(load_S[first_T], load_S[second_T]) > 0
    rows = pd.DataFrame(
        {
            "expert": first_T,
            "other": second_T,
            "together": together_T.astype(np.int64),
            "expected": expected_T,
            "ratio": np.divide(together_T, expected_T, out=np.full(len(expected_T), np.nan), where=possible_T),
        }
    )
    # relative deviation of each unit's loads; what it explains of a pair is that of both experts together
    load_US = (took_US - tokens_U[:, None] * load_S) / np.where(load_S > 0, load_S, 1)
    residual_UT = pair_UT - tokens_U[:, None] * chance_T - chance_T * (load_US[:, first_T] + load_US[:, second_T])
    variance_T = np.maximum((residual_UT**2).sum(axis=0), expected_T * (1 - chance_T))
    tested_T = (expected_T >= FEWEST_EXPECTED) & (num_units >= FEWEST_UNITS)
    scale_T = 1 / np.sqrt(np.where(variance_T > 0, variance_T, 1))
    observed_T = np.where(tested_T, np.abs(residual_UT.sum(axis=0)) * scale_T, np.nan)
    settings = groups.settings
    coin_BU = draws.generator(settings.seed, "signs of pairs").integers(0, 2, (settings.permutations, num_units))
    return PairTest(rows, observed_T, residual_UT * scale_T, 1 - 2 * coin_BU.astype(np.float64))


def count_together(choices: Choices, unit_N: draws.Integers, num_units: int) -> Array:
    """Return how many tokens of each unit chose both of two slots, (U, S, S); the diagonal counts single slots."""
    result = np.zeros((num_units, choices.num_slots, choices.num_slots))
    choice_NK = choices.choice_NK[np.argsort(unit_N, kind="stable")]
    count_U = np.bincount(unit_N, minlength=num_units)
    end_U, width = np.cumsum(count_U), choices.num_slots + 1  # the first column is for none
    start_N = np.arange(int(count_U.max(initial=0)))[:, None] * width + 1
    for unit, (end, count) in enumerate(zip(end_U.tolist(), count_U.tolist(), strict=True)):
        chosen_NS = np.zeros((count, width), dtype=np.float32)
        chosen_NS.reshape(-1)[start_N[:count] + choice_NK[end - count : end]] = 1.0
        result[unit] = (chosen_NS.T @ chosen_NS)[1:, 1:]
    return result


def most_extreme(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one layer that the table keeps, in the order of the experts."""
    if len(rows) <= MOST_ROWS:
        return rows
    away = np.abs(np.log(np.maximum(rows["ratio"].to_numpy(), 1e-3)))
    kept = np.lexsort((-np.nan_to_num(away), rows["q_value"].fillna(2.0).to_numpy()))[:MOST_ROWS]
    return rows.iloc[np.sort(kept)]
