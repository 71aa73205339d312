"""Statistics of how evenly a selector spreads its choices: functions of f, each slot's share of the hard choices.

Hard choices are counted because the mean of the probabilities is blind to collapse (S1: 2.04 of 2.08 nats of mean
router entropy while one expert had 94 % of the tokens). Each function takes shares whose last axis is the slot and sums
to one. It keeps the axes before that.

Shape suffixes: K checks (steps), S slots (E in the equations).
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import entr

from speciate.selection.tally import Array

DEAD_BELOW = 0.1
"""A slot is dead below this fraction of its even share 1/E."""


def shares(chosen: Array) -> Array:
    """Return f_e = sum_t a_te / (k n) from counts of choices by slot (last axis); NaN where nothing was chosen."""
    with np.errstate(invalid="ignore"):
        result: Array = chosen / chosen.sum(axis=-1, keepdims=True)
    return result


NULL_FLOOR = 1e-3
"""A slot that the null chooses less often than this gets no share: a few choices would make it the largest."""


def is_even(null: Array) -> bool:
    """Return whether an unlearned selector's shares (last axis) are all 1/E."""
    return bool(np.allclose(null, 1 / null.shape[-1], rtol=1e-9, atol=0))


def null_scale(null: Array) -> Array:
    """Return 1/q of an unlearned selector's shares q, by which shares are made relative; 0 below `NULL_FLOOR`."""
    return np.divide(1.0, null, out=np.zeros_like(null), where=null >= NULL_FLOOR)


def max_share_limit(num_slots: int, num_chosen: float = 1.0) -> float:
    """Return the largest share of a selector that has not collapsed: E^(-1/3) k^(-2/3).

    On a logarithmic scale it lies two thirds of the way from the even share, 1/E, to the largest that a slot can have,
    1/k. Of top-1 routers it is .79 of two experts, .50 of eight and .25 of 64; of top-2 of eight .31; of top-8 of 64
    .0625, which means half of the tokens. A multiple of 1/E does not scale like this: published healthy models have
    E max f = 1.1 to 1.3 (Mixtral, top-2 of 8), 2.1 to 2.8 (OLMoE, top-8 of 64) and 6.7 to 8.2 (OLMoE's first choices).
    """
    even, most = 1 / num_slots, 1 / min(max(num_chosen, 1.0), num_slots)
    return float(even ** (1 / 3) * most ** (2 / 3))


def effective_slots_limit(num_slots: int, num_chosen: float = 1.0) -> float:
    """Return the fewest effective slots of a selector that has not collapsed: E/2, or sqrt(k E) where that is more.

    k slots share even a total collapse, so where k > E/4 the limit lies half way from k to E on a logarithmic scale.
    """
    return max(num_slots / 2, math.sqrt(min(max(num_chosen, 1.0), num_slots) * num_slots))


def max_share(share: Array) -> Array:
    """Return the largest share, max f."""
    result: Array = share.max(axis=-1)
    return result


def max_violation(share: Array) -> Array:
    """Return MaxVio = E max f - 1 (Wang et al. 2024, arXiv 2408.15664): 0 when even, E - 1 when one slot takes all."""
    result: Array = share.shape[-1] * share.max(axis=-1) - 1
    return result


def noise_floor(num_slots: int, decisions: Array | float, num_chosen: float) -> Array:
    """Return the MaxVio that chance alone gives a perfectly even selector: sqrt(2 ln E (E - 1) / (k n)).

    Each share has a standard deviation of sqrt((1/E)(1 - 1/E) / (k n)). The largest of E shares lies about sqrt(2 ln E)
    standard deviations above the mean. The formula treats decisions as independent. Those of one text are not, so this
    is a floor and not a bound.
    """
    choices = num_chosen * np.asarray(decisions, dtype=np.float64)
    with np.errstate(divide="ignore"):  # without decisions it is infinite
        result: Array = np.sqrt(2 * np.log(num_slots) * (num_slots - 1) / choices)
    return result


def effective_slots(share: Array) -> Array:
    """Return N_eff = 2^H(f) with H in bits (Hill number of order 1): E when even, 1 when one slot takes all."""
    result: Array = np.exp(entr(share).sum(axis=-1))
    return result


def gini(share: Array) -> Array:
    """Return the Gini coefficient: 0 when the shares are even, 1 - 1/E when one slot takes all.

    Gini = sum_i (2i - E - 1) f_(i) / (E sum f), with f sorted in ascending order.
    """
    num_slots = share.shape[-1]
    weight_S = 2 * np.arange(1, num_slots + 1) - num_slots - 1
    result: Array = (np.sort(share, axis=-1) * weight_S).sum(axis=-1) / (num_slots * share.sum(axis=-1))
    return result


def cv_squared(share: Array) -> Array:
    """Return CV^2 = var(f) / mean(f)^2 (Shazeer et al. 2017); chance alone gives (E - 1) / (k n)."""
    result: Array = share.var(axis=-1) / share.mean(axis=-1) ** 2
    return result


def is_dead(share: Array, below: float = DEAD_BELOW) -> npt.NDArray[np.bool_]:
    """Return whether each slot is dead: f_e < eps / E with eps = `below`."""
    result: npt.NDArray[np.bool_] = share < below / share.shape[-1]
    return result


def num_dead(share: Array) -> Array:
    """Return the number of dead slots."""
    result: Array = is_dead(share).sum(axis=-1).astype(np.float64)
    return result


def unevenness(share: Array, num_chosen: float = 1.0) -> Array:
    """Return how near the load is to the limits of collapse, by the nearer of the two: above 1 it is beyond.

    max(max f / `max_share_limit`, `effective_slots_limit` / N_eff). Unlike a share or MaxVio, it compares selectors of
    different numbers of slots and choices.
    """
    size = (share.shape[-1], num_chosen)
    result: Array = np.maximum(
        max_share(share) / max_share_limit(*size), effective_slots_limit(*size) / effective_slots(share)
    )
    return result


def largest_share_bounds(share_BS: Array, low_tail: float, high_tail: float) -> tuple[float, float]:
    """Return bounds of the largest share from draws of the shares, without the bias of having picked the largest.

    The lower bound is the largest of the slots' lower quantiles, each at `low_tail`: give a tail over E, so that the
    chance that any slot's bound exceeds its true share is at most the tail. The upper bound is the largest of the
    slots' upper quantiles, since the truly largest slot is among them.
    """
    low = np.quantile(share_BS, low_tail, axis=0).max()
    return float(low), float(np.quantile(share_BS, 1 - high_tail, axis=0).max())


def effective_slots_upper(share_S: Array, share_BS: Array, tail: float) -> float:
    """Return the upper bound of the number of effective slots from draws of the shares, at most E.

    Chance unevenness lowers the number, in the sample as in each draw of the sample again. The basic bootstrap bound,
    2 N - (the draws' quantile at the tail), puts the draws' bias right once (Efron & Tibshirani 1993, ch. 13).
    """
    low = np.quantile(effective_slots(share_BS), tail)
    return float(np.minimum(2 * effective_slots(share_S) - low, len(share_S)))


OF_SHARES: dict[str, Callable[[Array], Array]] = {
    "max_share": max_share,
    "max_violation": max_violation,
    "effective_experts": effective_slots,
    "gini": gini,
    "cv_squared": cv_squared,
    "dead_experts": num_dead,
}
"""Column of table `selectors` -> the function that computes it from shares, (..., S) -> (...)."""


def revivals(share_KS: Array, steps_K: npt.NDArray[np.int64], armed_step: float = 0) -> pd.DataFrame:
    """Return a row for each death of a slot at or after `armed_step`, with the step at which it was alive again.

    Returns:
        slot, died (step of the first check that found it dead), revived (step of the next check that found it alive;
        NaN: never). A slot that dies twice has two rows. A slot that is dead already at the first armed check dies
        there.
    """
    armed_K = steps_K >= armed_step
    dead_KS, steps = is_dead(share_KS[armed_K]), steps_K[armed_K]
    rows: list[tuple[int, int, float]] = []
    for slot in range(share_KS.shape[1]):
        died: int | None = None
        for step, dead in zip(steps.tolist(), dead_KS[:, slot].tolist(), strict=True):
            if dead and died is None:
                died = step
            elif not dead and died is not None:
                rows.append((slot, died, float(step)))
                died = None
        if died is not None:
            rows.append((slot, died, float("nan")))
    table = pd.DataFrame(rows, columns=["slot", "died", "revived"])
    return table.astype({"slot": "int64", "died": "int64", "revived": "float64"})


def num_revived(share_KS: Array, steps_K: npt.NDArray[np.int64], armed_step: float = 0) -> npt.NDArray[np.int64]:
    """Return the number of slots, (K,), that were dead at an earlier armed check and are alive at this one."""
    dead_KS = is_dead(share_KS)
    counted_KS = dead_KS & (steps_K >= armed_step)[:, None]
    before_KS = np.logical_or.accumulate(counted_KS, axis=0)
    result: npt.NDArray[np.int64] = (before_KS & ~dead_KS).sum(axis=1).astype(np.int64)
    return result
