"""Collapse alarm whose rate of false alarms is known before the run: a test martingale on the slots' shares.

H0, a healthy run: given the past, the share X_t(e, l) of every slot e of every selector l has a mean of at most tau.
Then

    prod_{s<=t} (1 + lambda_s (X_s - tau)),    lambda_s in [0, 1/tau) known before X_s,

never grows in expectation, nor does the mean M_t of such products, and by Ville's inequality (1939)
P(M_t >= 1/a at any t) <= a, whenever one stops and however the observations depend on each other (Ramdas et al. 2023).

Decisions:
- tau = 2.4 / E; for fewer than four slots it follows `load.share_limit`. In the pilot, the balanced top-1 routers ended
  at 1.8 / E and 2.0 / E, and the collapsed ones above 6 / E.
- lambda is not a single number but a mixture. It has stakes c / tau, c in STAKES, and starts betting at every check s
  with weight 1 / (s (s + 1)). A product that starts at s bets nothing before (lambda = 0), so each product is valid,
  and so is their mean. Small stakes survive long healthy stretches, and late starts find a collapse that follows one.
  Half the weight bets from the first check. The weights do not depend on the run's length, so the alarm works during
  training.
- M_t is the mean over slots, selectors, stakes and starts. The products of one selector form its own alarm with its own
  guarantee. 'any' is the alarm of the whole run, over all selectors: one guarantee a run, not the first of several.
- The alarm is armed after warm-up, because a random initial router already exceeds tau. M_t leaves out earlier checks.

A share that stays above tau raises the alarm by design, whether or not it hurts. Where tau >= 1/k (many chosen of few
slots) no share can exceed tau, and the alarm stays silent.

Shape suffixes: K checks, L selectors, S slots, C stakes.
"""

import numpy as np

from speciate.analysis import load
from speciate.selection.tally import Array

TAU_SHARES = 2.4
"""tau in units of the even share 1/E."""
STAKES = (0.25, 0.5, 0.75, 0.95)
"""lambda tau of each member of the mixture."""


def slot_wealth(share_KS: Array, tau: float) -> Array:
    """Return the mixture martingale of each slot after each check, (K, S); before the first it is 1.

    The recursion sums over the starts: R_t = (R_{t-1} + w_t)(1 + lambda (X_t - tau)), w_t = 1 / (t (t + 1)). The starts
    that are still to come hold their weight, 1 / (t + 1).
    """
    stake_C = np.array(STAKES) / tau
    started_CS = np.zeros((len(stake_C), share_KS.shape[1]))
    wealth_KS = np.empty_like(share_KS)
    for index, share_S in enumerate(share_KS):
        check = index + 1
        started_CS = (started_CS + 1 / (check * (check + 1))) * (1 + stake_C[:, None] * (share_S - tau))
        wealth_KS[index] = started_CS.mean(axis=0) + 1 / (check + 1)
    return wealth_KS


def collapse_evidence(share_LKS: list[Array], tau_shares: float = TAU_SHARES) -> tuple[Array, Array]:
    """Return M_t of each selector, (L, K), and of the run, (K,): means over slots, and over all slots of all selectors.

    Args:
        share_LKS: one array (K, S) for each selector; their numbers of slots may differ. Armed checks only.
        tau_shares: tau in units of 1/S, where S is at least four.
    """
    wealth_L = [slot_wealth(share_KS, load.share_limit(tau_shares, share_KS.shape[1])) for share_KS in share_LKS]
    by_selector_LK = np.stack([wealth_KS.mean(axis=1) for wealth_KS in wealth_L])
    run_K: Array = np.concatenate(wealth_L, axis=1).mean(axis=1)
    return by_selector_LK, run_K
