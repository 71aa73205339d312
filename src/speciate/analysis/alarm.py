"""Collapse alarm with a known rate of false alarms: documents bet against health at each check, and checks add up.

H0, a healthy run: at no check does the share of any slot exceed its limit tau (`load.max_share_limit`) in the texts
from which the probe's documents were drawn. The share is that of the mean document (`share_weights`), with equal
weights of the domains. So the statement is about the population of texts, and not only about the probe.

One check. Groups of documents are independent, and the model has never seen them. Group g gives the share y_gs to slot
s. For a stake theta in (0, 1) it multiplies the wealth that is bet against slot s by

    1 + theta (w_g / max w) (y_gs - tau) / tau >= 0,        w_g: weight of the group's domain, of mean 1.

Jensen's inequality for the logarithm bounds the expected product over n groups by b(f_s), where f_s is the share in the
population and b(f) = (1 + theta (f - tau) / (tau max w))^n; b(tau) = 1. Shares sum to one, so at most 1/tau slots reach
tau, and b is convex. The sum of b(f_s) over a healthy selector's slots is therefore at most B: as many slots as fit at
tau, one with the rest, the others at 0. The sum of the slots' products divided by B has an expectation of at most 1 (an
e-value, Shafer 2021, Ramdas et al. 2023), and so has e_t, its mean over STAKES.

All checks. The probe is the same at every check, so a bet must not be repeated on it: a chance surplus of its documents
would be counted again at each check, and a product over checks would find it sooner or later (measured: 28 % of healthy
runs in 200 checks). A sum is safe whatever the dependence:

    M_t = (e_1 + ... + e_t) / K,  K: number of armed checks;   P(M_t >= 1/a at any t) <= E M_K / (1/a) <= a.

The alarm of a selector has this guarantee by itself. M of the run is the mean of its selectors' M, so the run's alarm
has one guarantee over all selectors together: the chance that any selector of a healthy run raises its own is larger.

How fast: with n groups, a total collapse multiplies the wealth by at most 1/tau for each group. No test of the same
guarantee could use more, since n documents may all choose one slot with probability tau^n in a healthy run. Of two
slots (tau .79) a group is worth .23 nats at most, of eight (tau .5) .69. `checks_to_fire` says whether the probe has
enough groups, and after how many checks a total collapse raises the alarm; NaN: this run cannot have one.

Limits: the alarm looks at the largest share, not at the number of effective slots. It assumes that nothing of the
training depends on the probe, and that groups are independent, which a selector that compares tokens of different
documents (expert choice) need not respect.

Shape suffixes: K checks, L selectors, G groups of documents, S slots, R domains.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from speciate.analysis import load
from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

STAKES = (0.5, 0.75, 0.95)
"""theta of each member of the mixture. A collapse spreads over all documents, so large stakes pay; less than 1 survives
a document that never chooses the slot."""
NUMBERS_AT_ONCE = 2_000_000
"""Numbers in one array of bets, which bounds the memory of a long run with many slots."""
FACTORS_AT_ONCE = 8
"""Factors in one product, each between .05 and a few thousand, so that it neither vanishes nor overflows."""


@dataclass(frozen=True, eq=False)
class Observations:
    """What a selector chose at each check, by group of documents."""

    chosen_KGS: Array
    """Sums of choices; zero in a group without a decision."""
    domain_G: Integers
    """The domain of each group."""
    null_S: Array
    """Shares of an unlearned selector."""
    num_chosen: float = 1.0
    """k of an even null; 1 where the null is not even, since a share may then be anything up to 1."""

    @property
    def tau(self) -> float:
        """Return the largest share of a healthy selector."""
        return load.max_share_limit(len(self.null_S), self.num_chosen)

    def armed(self, armed_K: npt.NDArray[np.bool_]) -> "Observations":
        """Return the observations at the armed checks."""
        return Observations(self.chosen_KGS[armed_K], self.domain_G, self.null_S, self.num_chosen)


def share_weights(present_KG: npt.NDArray[np.bool_], domain_G: Integers) -> Array:
    """Return each group's weight in the mean share, (K, G), with a mean of 1 over the groups that are present.

    Every group of a domain weighs the same, and so do all domains that are present, w_g = n / (R n_r): else a domain of
    many short documents would decide.
    """
    member_GR = (domain_G[:, None] == np.unique(domain_G)).astype(np.float64)
    count_KR = present_KG @ member_GR
    domains_K = np.maximum((count_KR > 0).sum(axis=1), 1)
    of_own_KG = np.maximum(count_KR @ member_GR.T, 1)
    result: Array = present_KG * count_KR.sum(axis=1, keepdims=True) / (domains_K[:, None] * of_own_KG)
    return result


def relative_gains(share_GS: Array, null_S: Array, tau: float) -> Array:
    """Return what each group wins or loses against each slot, (..., S): at least -1, of mean <= 0 if healthy.

    For an even null it is (y - tau) / tau. Else shares are relative to the null, f_s / q_s renormalised
    (`observation.shares_against_null`), and that such a share is at most tau is a linear condition on the y:
    y_s / q_s - tau sum_r y_r / q_r <= 0. It is divided by its least value, tau max_{r != s} 1 / q_r.
    """
    scale_S = load.null_scale(null_S)
    relative_GS = share_GS * scale_S
    others_S = np.array([np.delete(scale_S, slot).max(initial=0) for slot in range(len(scale_S))])
    least_S = tau * np.where(others_S > 0, others_S, 1.0)
    result: Array = (relative_GS - tau * relative_GS.sum(axis=-1, keepdims=True)) / least_S
    return result


def log_bound(stake: float, tau: float, num_slots: int, *, num_groups: Array, largest_weight: Array) -> Array:
    """Return ln B: the largest sum over a healthy selector's slots of the expected products (see the module)."""

    def log_b(share: float) -> Array:
        result: Array = num_groups * np.log1p(stake * (share - tau) / (tau * largest_weight))
        return result

    at_limit = min(int(1 / tau + 1e-9), num_slots)
    terms = [log_b(tau) + math.log(at_limit)]
    if at_limit < num_slots:
        terms.append(log_b(max(1 - at_limit * tau, 0.0)))
    if at_limit + 1 < num_slots:
        terms.append(log_b(0.0) + math.log(num_slots - at_limit - 1))
    bound: Array = logsumexp(terms, axis=0)
    return bound


def sum_logs(factor_KGS: Array) -> Array:
    """Return the sum of logarithms over the groups, (K, S): products of a few groups first, as logarithms are slow."""
    starts = np.arange(0, factor_KGS.shape[1], FACTORS_AT_ONCE)
    result: Array = np.log(np.multiply.reduceat(factor_KGS, starts, axis=1)).sum(axis=1)
    return result


def log_evidence(share_KGS: Array, present_KG: npt.NDArray[np.bool_], observed: Observations) -> Array:
    """Return ln e of each check, (K,): 0 where nothing was decided.

    Args:
        share_KGS: y, the groups' shares.
        present_KG: whether a group has a decision.
        observed: the selector's domains, null and k.
    """
    weight_KG, num_slots = share_weights(present_KG, observed.domain_G), share_KGS.shape[2]
    largest_K, num_groups_K = np.maximum(weight_KG.max(axis=1, initial=0), 1.0), present_KG.sum(axis=1).astype(float)
    gain_KGS = relative_gains(share_KGS, observed.null_S, observed.tau)
    bet_KGS = (weight_KG / largest_K[:, None])[..., None] * gain_KGS
    members = []
    for stake in STAKES:
        # where shares are renormalised they are not bounded together, and B is the number of slots
        bound_K: Array | float = math.log(num_slots)
        if load.is_even(observed.null_S):
            bound_K = log_bound(stake, observed.tau, num_slots, num_groups=num_groups_K, largest_weight=largest_K)
        members.append(logsumexp(sum_logs(1 + stake * bet_KGS), axis=1) - bound_K)
    result: Array = logsumexp(members, axis=0) - math.log(len(STAKES))
    return result


def check_evidence(observed: Observations) -> Array:
    """Return ln e_t of each check, (K,)."""
    num_checks, *size = observed.chosen_KGS.shape
    at_once = max(1, NUMBERS_AT_ONCE // max(1, math.prod(size)))
    parts = [np.zeros(0)]
    for start in range(0, num_checks, at_once):
        chosen_KGS = observed.chosen_KGS[start : start + at_once]
        total_KG = chosen_KGS.sum(axis=2)
        share_KGS = chosen_KGS / np.where(total_KG > 0, total_KG, 1.0)[..., None]
        parts.append(log_evidence(share_KGS, total_KG > 0, observed))
    return np.concatenate(parts)


def log_wealth(observed: Sequence[Observations]) -> tuple[Array, Array]:
    """Return ln M_t of each selector, (L, K), and of the run, (K,).

    Args:
        observed: the selectors' armed checks, at least one selector; all of them have the same checks.
    """
    evidence_LK = np.stack([check_evidence(one) for one in observed])
    num_checks = evidence_LK.shape[1]
    by_selector_LK = np.logaddexp.accumulate(evidence_LK, axis=1) - math.log(max(num_checks, 1))
    run_K: Array = logsumexp(by_selector_LK, axis=0) - math.log(len(observed))
    return by_selector_LK, run_K


def checks_to_fire(observed: Observations, false_alarms: float, num_selectors: int = 1) -> float:
    """Return after how many armed checks a total collapse raises the alarm; NaN where the run has too few checks.

    In a total collapse every document gives all to the same slot, or 1/k to each of the same k slots. Where the null is
    uneven, the slot is the one that would take longest.

    Args:
        observed: the armed checks; the groups are those of the last.
        false_alarms: a.
        num_selectors: 1 for the selector's own alarm, the number of the run's selectors for the run's.
    """
    num_checks, num_groups, num_slots = observed.chosen_KGS.shape
    if not num_checks:
        return math.nan
    present_KG = observed.chosen_KGS[-1:].sum(axis=2) > 0
    even, chosen = load.is_even(observed.null_S), min(max(1, round(observed.num_chosen)), num_slots)
    least = math.inf
    for slot in [0] if even else np.nonzero(load.null_scale(observed.null_S))[0].tolist():
        share_KGS = np.zeros((1, num_groups, num_slots))
        share_KGS[..., slot : slot + chosen] = 1 / chosen
        least = min(least, float(log_evidence(share_KGS, present_KG, observed)[0]))
    needed = math.log(num_checks * num_selectors / false_alarms) - least
    # compared on the logarithmic scale, since the exponential of a hopeless case could overflow
    return float(max(1, math.ceil(math.exp(needed) - 1e-9))) if needed <= math.log(num_checks) else math.nan
