"""Which experts a token would choose together, if the loads of the experts were all that mattered.

A token chooses k distinct experts, so pairs are not independent: two experts that half of the tokens choose are chosen
together by a third of them where k = 2 of 4. Of all laws of subsets with the given loads, the one of largest entropy
assumes nothing else. It is conditional Poisson sampling (Hajek 1964; Chen, Dempster & Liu 1994):

    P(A) = prod_{e in A} w_e / R(k),      R(j) = sum over subsets B of size j of prod_{e in B} w_e

Where tokens choose different numbers of experts, each size has this law, with the same weights w.

Shape suffixes: S slots (experts), J sizes 0..k.
"""

import numpy as np

from speciate.selection.tally import Array

MAX_SCALINGS, MAX_NEWTON = 100, 60
MAX_CHANGE = 2.0
"""Largest change of the logarithm of a weight in one of Newton's steps."""
TOLERANCE = 1e-9
EXTREME = 1e-9
"""A load nearer to 0 or 1 than this is 0 or 1: its weight would be 0 or infinite."""


def pair_probabilities(load_S: Array, size_J: Array) -> Array:
    """Return the probability that a token chooses both of two slots, (S, S); its diagonal has the loads.

    Args:
        load_S: the probability that a token chooses each slot; the sum is the mean size.
        size_J: share of the tokens that choose 0, 1, ..., k slots.
    """
    always_S, free_S = load_S > 1 - EXTREME, (load_S >= EXTREME) & (load_S <= 1 - EXTREME)
    both_SS = np.zeros((len(load_S), len(load_S)))
    # every token chooses these, so that a pair with one of them is as likely as the other slot
    both_SS[always_S] = load_S
    both_SS[:, always_S] = load_S[:, None]
    both_SS[np.ix_(free_S, free_S)] = _of_free_slots(load_S[free_S], size_J[int(always_S.sum()) :])
    np.fill_diagonal(both_SS, load_S)
    return both_SS


def _of_free_slots(load_S: Array, size_J: Array) -> Array:
    if len(load_S) < 2 or len(size_J) < 2:
        return np.diag(load_S)
    weight_S = _solve(load_S, size_J)
    _, one_S = _inclusion(weight_S, size_J)
    both_SS = _both(weight_S, size_J)
    np.fill_diagonal(both_SS, one_S)
    return both_SS


def _products(weight: Array, most: int) -> Array:
    """Return R of the first 0, 1, ..., S weights (last axis): (S + 1, ..., most + 1)."""
    sums = np.zeros((weight.shape[-1] + 1, *weight.shape[:-1], most + 1))
    sums[..., 0] = 1
    for slot in range(weight.shape[-1]):
        sums[slot + 1] = sums[slot]
        sums[slot + 1][..., 1:] += weight[..., slot, None] * sums[slot][..., :-1]
    return sums


def _without_each(weight: Array, most: int) -> tuple[Array, Array]:
    """Return R of all weights, (..., most + 1), and of all but each one, (S, ..., most + 1)."""
    before = _products(weight, most)
    after = _products(weight[..., ::-1], most)[::-1]  # after[s]: of the weights s, s + 1, ...
    without = np.zeros_like(before[:-1])
    for size in range(most + 1):
        for part in range(size + 1):
            without[..., size] += before[:-1][..., part] * after[1:][..., size - part]
    return before[-1], without


def _inclusion(weight_S: Array, size_J: Array) -> tuple[Array, Array]:
    """Return R(0..k) and the probability that each slot is chosen."""
    whole_J, without_SJ = _without_each(weight_S, len(size_J) - 1)
    factor_J = np.divide(size_J[1:], whole_J[1:], out=np.zeros(len(size_J) - 1), where=whole_J[1:] > 0)
    result: Array = weight_S * (without_SJ[:, :-1] @ factor_J)
    return whole_J, result


def _both(weight_S: Array, size_J: Array) -> Array:
    """Return the probability that both of two slots are chosen, (S, S)."""
    number, most = len(weight_S), len(size_J) - 1
    if most < 2:
        return np.zeros((number, number))
    whole_J, _ = _inclusion(weight_S, size_J)
    factor_J = np.divide(size_J[2:], whole_J[2:], out=np.zeros(most - 1), where=whole_J[2:] > 0)
    # row s: the weights without slot s; then R without each of the others as well
    without_SS = np.where(np.eye(number, dtype=bool), 0.0, weight_S)
    _, both_SSJ = _without_each(without_SS, most - 2)
    pairs_SS: Array = both_SSJ @ factor_J
    return pairs_SS * weight_S[:, None] * weight_S


def _solve(load_S: Array, size_J: Array) -> Array:
    """Return weights under which each slot is chosen with its load, with a geometric mean of 1.

    Odds are scaled until loads agree. Where that is slow, since some loads are near 1, Newton's method ends it: the
    logarithms of the weights minimise a convex function, whose second derivatives are the covariances of the choices.
    """
    log_S = np.log(load_S / (1 - load_S))
    for step in range(MAX_SCALINGS + MAX_NEWTON):
        log_S = log_S - log_S.mean()
        weight_S = np.exp(log_S)
        _, chosen_S = _inclusion(weight_S, size_J)
        if np.abs(chosen_S - load_S).max() < TOLERANCE:
            break
        if step < MAX_SCALINGS:
            log_S = log_S + _log_odds(load_S) - _log_odds(chosen_S)
            continue
        both_SS = _both(weight_S, size_J)
        np.fill_diagonal(both_SS, chosen_S)
        covariance_SS = both_SS - np.outer(chosen_S, chosen_S)
        change_S = np.linalg.lstsq(covariance_SS, load_S - chosen_S, rcond=1e-12)[0]
        log_S = log_S + change_S * min(1.0, MAX_CHANGE / max(float(np.abs(change_S).max()), 1e-300))
    return np.exp(log_S)


def _log_odds(load_S: Array) -> Array:
    within_S = np.clip(load_S, EXTREME**2, 1 - EXTREME)
    result: Array = np.log(within_S / (1 - within_S))
    return result
