"""Would other documents give the same lifts? The correlation between two halves of the documents.

Lifts are compared about 1, with experts weighed by their share. r is the mean over several splits in halves, and
2 r / (1 + r) is what it would be for two samples as large as the whole (Spearman 1910; Brown 1910).

Shape suffixes: Q splits, G groups, D labels, S slots.
"""

import numpy as np

from speciate.analysis import draws
from speciate.analysis.routing.grouping import DocumentGroups
from speciate.analysis.routing.lifts import lift_matrix
from speciate.analysis.routing.loads import GroupedSelector
from speciate.selection.tally import Array

NUM_SPLITS = 20
NAN = float("nan")


def split_half(selector: GroupedSelector, groups: DocumentGroups) -> float:
    """Return the reliability of a selector's lifts; NaN without two labels that have two groups each."""
    present_G = (selector.tally.decisions_G > 0) & (groups.label_G >= 0)
    number_D = np.bincount(groups.label_G[present_G], minlength=len(groups.labels))
    (labels,) = np.nonzero(number_D > 1)
    if len(labels) < 2:
        return NAN
    kept_G = present_G & np.isin(groups.label_G, labels)
    label_G = np.searchsorted(labels, groups.label_G[kept_G])
    second_QG = groups.halves(kept_G, NUM_SPLITS)
    first, second = (
        lift_matrix(draws.sums_by_resample(times_QG, label_G, len(labels), selector.tally.chosen_GS[kept_G]))[1]
        for times_QG in (1 - second_QG, second_QG)
    )
    correlation_Q = _weighted_correlation(first, second, selector.share_S)
    found = correlation_Q[np.isfinite(correlation_Q)]
    if not len(found):
        return NAN
    mean = float(found.mean())
    return 2 * mean / (1 + mean) if mean > -1 else -1.0


def _weighted_correlation(one_QDS: Array, other_QDS: Array, weight_S: Array) -> Array:
    weight_S = np.where(weight_S > 0, weight_S, 0)
    one, other = np.nan_to_num(one_QDS - 1), np.nan_to_num(other_QDS - 1)
    product, of_one, of_other = ((pair * weight_S).sum(axis=(1, 2)) for pair in (one * other, one**2, other**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Array = product / np.sqrt(of_one * of_other)
    return result
