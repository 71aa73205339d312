"""Each token's mask probability when a share s of its row is masked: three rules, all with s L masks expected.

    uniform        p_i = s
    power          p_i = tau^(w_i), tau in (0, 1] such that sum_i p_i = s L;   d log p_i / d s = w_i L / sum_j w_j p_j
    proportional   p_i = min(1, c v_i), c such that sum_i p_i = s L;           d log p_i / d s = L / (s L - saturated)
                                                                               or 0 where p_i = 1

w_i > 0 is an exponent (a large one keeps its token visible for long), v_i > 0 an importance. Weights w of mean 1 alone
would not keep the budget: sum_i s^(w_i) >= s L, by convexity. Each p_i rises from 0 to 1 as s does, so each token has
its own clock (Shi et al. 2024 have one for each word). The weight of a token's nats is d log p_i / d s times the
slope of s in time. All arithmetic is in float64 and without gradient.

B rows of T tokens, L of a row maskable.
"""

import torch
from torch import Tensor

ITERATIONS = 40
"""Largest number of Newton steps."""


def uniform_probs(maskable_BT: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return (p, d log p / ds), (B, T) each, for equal probabilities; both are 0 where nothing may be masked."""
    share_B1 = share_B.double().unsqueeze(1)
    return torch.where(maskable_BT, share_B1, 0.0), torch.where(maskable_BT, 1 / share_B1, 0.0)


@torch.no_grad()
def power_probs(exponent_BT: Tensor, maskable_BT: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return (p, d log p / ds), (B, T) each, for p = tau^w; both are 0 where nothing may be masked.

    Newton's method solves log sum exp(-a w) = log(s L) for a = -log tau. The function is convex and falling, so the
    iteration rises from a = 0 to the root and never passes it.

    Args:
        exponent_BT: w, positive.
        maskable_BT: which tokens may be masked.
        share_B: s of each row, in (0, 1].
    """
    exponent_BT = exponent_BT.double()
    num_B1 = maskable_BT.sum(1, keepdim=True).clamp(min=1).double()
    log_budget_B1 = (share_B.double().unsqueeze(1) * num_B1).log()
    minus_a_B1 = torch.zeros_like(log_budget_B1)
    for _ in range(ITERATIONS):
        log_BT = (exponent_BT * minus_a_B1).masked_fill(~maskable_BT, -torch.inf)
        total_B1 = log_BT.logsumexp(1, keepdim=True)
        mean_B1 = ((log_BT - total_B1).exp() * exponent_BT).sum(1, keepdim=True)
        step_B1 = torch.where(maskable_BT.any(1, keepdim=True), (log_budget_B1 - total_B1) / mean_B1, 0.0)
        minus_a_B1 = (minus_a_B1 + step_B1).clamp(max=0)
        if bool((step_B1.abs() <= 1e-14 * minus_a_B1.abs().clamp(min=1)).all()):
            break
    prob_BT = torch.where(maskable_BT, (exponent_BT * minus_a_B1).exp(), 0.0)
    slope_BT = exponent_BT * num_B1 / (exponent_BT * prob_BT).sum(1, keepdim=True)
    return prob_BT, torch.where(maskable_BT, slope_BT, 0.0)


@torch.no_grad()
def proportional_probs(importance_BT: Tensor, maskable_BT: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return (p, d log p / ds), (B, T) each, for p = min(1, c v); both are 0 where nothing may be masked.

    The slope of a saturated token (p = 1) is 0.

    Args:
        importance_BT: v, positive.
        maskable_BT: which tokens may be masked.
        share_B: s of each row, in (0, 1].
    """
    value_BT = torch.where(maskable_BT, importance_BT.double(), 0.0)
    budget_B1 = (share_B.double() * maskable_BT.sum(1)).unsqueeze(1)
    sorted_BT = value_BT.sort(1, descending=True).values
    # with the n largest saturated, c spreads the rest of the budget over the rest of the row
    rest_BT = (sorted_BT.sum(1, keepdim=True) - sorted_BT.cumsum(1) + sorted_BT).clamp(min=1e-300)
    num_saturated_T = torch.arange(value_BT.shape[1], device=value_BT.device)
    scale_BT = (budget_B1 - num_saturated_T) / rest_BT
    fits_BT = (scale_BT * sorted_BT <= 1 + 1e-12) & (scale_BT >= 0)
    first_fit_B1 = torch.where(fits_BT, num_saturated_T, value_BT.shape[1] - 1).amin(1, keepdim=True)
    scale_B1 = scale_BT.gather(1, first_fit_B1)
    prob_BT = (scale_B1 * value_BT).clamp(max=1.0)
    # at s = 1 every token is masked; rounding may leave no n that fits
    prob_BT = torch.where((share_B == 1).unsqueeze(1), maskable_BT.to(prob_BT.dtype), prob_BT)
    free_BT = maskable_BT & (prob_BT < 1 - 1e-12)
    budget_left_B1 = (budget_B1 - (maskable_BT & ~free_BT).sum(1, keepdim=True)).clamp(min=1e-300)
    return prob_BT, torch.where(free_BT, maskable_BT.sum(1, keepdim=True) / budget_left_B1, 0.0)
