"""Do two runs divide the same tokens alike? Adjusted mutual information of their selectors' partitions.

    AMI = (I - E I) / (mean of both entropies - E I)        Vinh, Epps and Bailey 2010

E I is the expectation over all pairs of partitions with the same sizes (hypergeometric), so independent partitions have
0 on average however uneven they are, and equal ones 1, whatever their slots are called. A partition puts tokens with
the same set of slots together. Where both partitions have a single part, they say nothing, and there is no value.

Shape suffixes: P positions, S slots, R and C parts of two partitions.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, xlogy

from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

NAN = float("nan")


def partition(choice_PS: npt.NDArray[np.uint8]) -> Integers:
    """Return the part of each position, numbered from 0; -1 where the selector made no decision."""
    packed_PB = np.packbits(choice_PS > 0, axis=1)
    _, part_P = np.unique(packed_PB, axis=0, return_inverse=True)
    return np.where(choice_PS.any(axis=1), part_P.reshape(-1), -1).astype(np.int64)


def adjusted_mutual_information(one_P: Integers, other_P: Integers) -> tuple[float, int]:
    """Return (AMI, number of positions that both partitions hold); NaN where neither tells anything."""
    both_P = (one_P >= 0) & (other_P >= 0)
    count_RC = contingency(one_P[both_P], other_P[both_P])
    total = int(count_RC.sum())
    if total == 0 or count_RC.shape == (1, 1):
        return NAN, total
    row_R, column_C = count_RC.sum(axis=1), count_RC.sum(axis=0)
    information = entropy(row_R) + entropy(column_C) - entropy(count_RC)
    expected = expected_information(row_R, column_C)
    scale = (entropy(row_R) + entropy(column_C)) / 2 - expected
    return (float((information - expected) / scale) if abs(scale) > 1e-12 else NAN), total


def contingency(one_N: Integers, other_N: Integers) -> Array:
    """Return how many positions are in each pair of parts, (R, C), without empty parts."""
    (_, row_N), (_, column_N) = (np.unique(part_N, return_inverse=True) for part_N in (one_N, other_N))
    if not len(row_N):
        return np.zeros((0, 0))
    counts = np.bincount(row_N * (column_N.max() + 1) + column_N, minlength=(row_N.max() + 1) * (column_N.max() + 1))
    return counts.reshape(row_N.max() + 1, -1).astype(np.float64)


def entropy(count: Array) -> float:
    """Return the entropy of counts, in nats."""
    share = count.reshape(-1) / count.sum()
    return float(-xlogy(share, share).sum())


def expected_information(row_R: Array, column_C: Array) -> float:
    """Return the mean mutual information, in nats, of all pairs of partitions with these sizes.

    E I = sum over pairs of parts and over m of m/n ln(n m / (a b)) P(m), P hypergeometric.
    """
    total, expected = round(float(row_R.sum())), 0.0
    log_factorial = gammaln(np.arange(total + 2) + 1.0)
    # parts of the same size have the same term: a text has thousands of tokens, and few sizes
    rows, columns = (np.unique(part.round().astype(np.int64), return_counts=True) for part in (row_R, column_C))
    for a, num_a in zip(*rows, strict=True):
        for b, num_b in zip(*columns, strict=True):
            m = np.arange(max(1, a + b - total), min(a, b) + 1)
            log_chance = log_factorial[[a, b, total - a, total - b]].sum() - log_factorial[total]
            log_chance = log_chance - log_factorial[m] - log_factorial[a - m] - log_factorial[b - m]
            log_chance = log_chance - log_factorial[total - a - b + m]
            term = np.sum(m / total * np.log(total * m / (a * b)) * np.exp(log_chance))
            expected += float(num_a * num_b * term)
    return expected
