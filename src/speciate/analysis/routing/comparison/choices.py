"""How far single tokens keep their experts from one record to another.

kappa is as in `layers.stability`: agreement beyond that of independent choices with the same loads.

Shape suffixes: R rows of a record, G groups, N matched tokens, K chosen slots, D depths, X bins of the margin.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis.draws import Integers
from speciate.analysis.layers.stability import Pair, agreement_columns
from speciate.analysis.routing.comparison.matching import Matched
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.selection.tally import Array

NAN = float("nan")
MARGINS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, float("inf"))
"""Upper bounds of the bins of the margin, logits."""
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """The choices of both records for tokens in which both decided, and whether their orders are known."""

    one_NK: npt.NDArray[np.int16]
    other_NK: npt.NDArray[np.int16]
    at_N: Integers
    """Places of the tokens in the first record's sample."""
    ordered: bool

    @property
    def shared_N(self) -> Array:
        """Return how many slots each token has in both."""
        same_NKK = (self.one_NK[:, :, None] == self.other_NK[:, None, :]) & (self.one_NK >= 0)[:, :, None]
        result: Array = same_NKK.sum(axis=(1, 2), dtype=np.float64)
        return result

    @property
    def number_N(self) -> tuple[Array, Array]:
        one_N, other_N = ((choice_NK >= 0).sum(axis=1, dtype=np.float64) for choice_NK in (self.one_NK, self.other_NK))
        return one_N, other_N


def token_pairs(matched: Matched, places: tuple[int, int], kept_R: npt.NDArray[np.bool_]) -> TokenPairs | None:
    if matched.one.sample is None or matched.other.sample is None or not len(matched.one_N):
        return None
    kept_N = kept_R[matched.one.sample.document_P[matched.one_N]]
    one_N, other_N = matched.one_N[kept_N], matched.other_N[kept_N]
    one_NK = matched.one.sample.choice_LPK[places[0]][one_N]
    other_NK = matched.other.sample.choice_LPK[places[1]][other_N]
    both_N = (one_NK >= 0).any(axis=1) & (other_NK >= 0).any(axis=1)
    if not both_N.any():
        return None
    selectors = matched.one.selectors[places[0]], matched.other.selectors[places[1]]
    ordered = all(selector.first_GS is not None or selector.num_chosen <= 1 for selector in selectors)
    return TokenPairs(one_NK[both_N], other_NK[both_N], one_N[both_N], ordered)


def compare_choices(
    matched: Matched, places: tuple[int, int], groups: DocumentGroups, kept_R: npt.NDArray[np.bool_]
) -> Row:
    names = ("same_first", "overlap", "rank_overlap", "kappa", "kappa_low", "kappa_high")
    row: Row = {"tokens": 0, **dict.fromkeys(names, NAN)}
    found = token_pairs(matched, places, kept_R)
    if found is None or matched.one.sample is None:
        return row
    group_N = groups.group_R[matched.one.sample.document_P[found.at_N]]
    num_slots = matched.one.selectors[places[0]].num_slots
    shared_N, (number_N, other_number_N) = found.shared_N, found.number_N
    number = groups.num_groups

    def sums(choice_NK: npt.NDArray[np.int16]) -> Array:
        chosen_NK = choice_NK >= 0
        place_NK = group_N[:, None] * num_slots + choice_NK
        return np.bincount(place_NK[chosen_NK], minlength=number * num_slots).reshape(number, -1).astype(np.float64)

    def by_group(value_N: Array) -> Array:
        return np.bincount(group_N, weights=value_N, minlength=number).astype(np.float64)

    pair = Pair(
        by_group(shared_N),
        by_group((number_N + other_number_N) / 2),
        by_group(np.ones(len(group_N))),
        sums(found.one_NK),
        sums(found.other_NK),
    )
    stratum_G = np.where(pair.decisions_G > 0, 0, -1)
    agreement = agreement_columns(pair, groups.resamples(stratum_G), groups.settings.confidence)
    row |= {
        "tokens": len(group_N),
        "overlap": agreement["observed"],
        "kappa": agreement["kappa"],
        "kappa_low": agreement["low"],
        "kappa_high": agreement["high"],
    }
    if found.ordered:
        row["same_first"] = float((found.one_NK[:, 0] == found.other_NK[:, 0]).mean())
        row["rank_overlap"] = rank_overlap(found.one_NK, found.other_NK)
    return row


def rank_overlap(one_NK: npt.NDArray[np.int16], other_NK: npt.NDArray[np.int16]) -> float:
    """Return the average overlap (Wu & Crestani 2003): the mean over depths d of the share of the first d in common.

    Depths beyond the choices that a token made count what it made.
    """
    depth = min(one_NK.shape[1], other_NK.shape[1])
    if not len(one_NK):
        return NAN
    same_NKK = (one_NK[:, :depth, None] == other_NK[:, None, :depth]) & (one_NK[:, :depth] >= 0)[:, :, None]
    common_ND = np.stack([same_NKK[:, :d, :d].sum(axis=(1, 2)) for d in range(1, depth + 1)], axis=1)
    made_N = np.maximum(np.minimum((one_NK[:, :depth] >= 0).sum(axis=1), (other_NK[:, :depth] >= 0).sum(axis=1)), 1)
    size_ND = np.minimum(np.arange(1, depth + 1), made_N[:, None])
    return float((common_ND / size_ND).mean())


def flips_by_margin(matched: Matched, places: tuple[int, int], kept_R: npt.NDArray[np.bool_]) -> pd.DataFrame | None:
    found = token_pairs(matched, places, kept_R)
    sample = matched.one.sample
    if found is None or sample is None or sample.margin_LP is None:
        return None
    margin_N = sample.margin_LP[places[0]][found.at_N].astype(np.float64)
    known_N = np.isfinite(margin_N)
    if not known_N.any():
        return None
    number_N, other_number_N = found.number_N
    flipped_N = (found.shared_N < number_N) | (number_N != other_number_N)
    bin_N = np.searchsorted(MARGINS, margin_N[known_N], side="left")
    tokens_X = np.bincount(bin_N, minlength=len(MARGINS))
    flipped_X = np.bincount(bin_N, weights=flipped_N[known_N], minlength=len(MARGINS))
    used_X = tokens_X > 0
    return pd.DataFrame(
        {
            "margin": np.array(MARGINS)[used_X],
            "tokens": tokens_X[used_X],
            "flipped": flipped_X[used_X] / tokens_X[used_X],
        }
    )
