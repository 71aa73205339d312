"""How likely each token is masked when a share s of its row is: three ways, all with exactly s L masks expected.

    uniform   p_i = s
    power     p_i = tau^(w_i), tau in (0, 1] such that sum_i p_i = s L;   d log p_i / d s = w_i L / sum_j w_j p_j
    fill      p_i = min(1, c v_i), c such that sum_i p_i = s L;           d log p_i / d s = L / (s L - saturated), or 0

w_i > 0 is an exponent (a large one keeps its token visible for long), v_i > 0 an importance. Weights w of mean 1 alone
would not keep the budget: sum_i s^(w_i) >= s L, by convexity. Each p_i rises from 0 to 1 as s does, so each token has a
clock of its own (Shi et al. 2024 have one for each word), and d log p_i / d s, times the slope of s in time, is what
its nats weigh. All is in float64 and without gradient.

B rows of T tokens, L of a row maskable.
"""

import torch
from torch import Tensor

ITERATIONS = 40


def uniform(maskable_BT: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """(p, d log p / ds), both (B, T) and 0 where nothing may be masked."""
    share_B1 = share_B.double().unsqueeze(1)
    return torch.where(maskable_BT, share_B1, 0.0), torch.where(maskable_BT, 1 / share_B1, 0.0)


@torch.no_grad()
def power(exponent_BT: Tensor, maskable_BT: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """(p, d log p / ds), both (B, T) and 0 where nothing may be masked.

    Newton's method on log sum exp(-a w) = log(s L), a = -log tau: convex and falling, so that it rises from a = 0 to
    the root without ever passing it.

    Args:
        exponent_BT: w, positive.
        maskable_BT: which tokens may be masked.
        share_B: s of each row, in (0, 1].
    """
    exponent_BT = exponent_BT.double()
    num_B1 = maskable_BT.sum(1, keepdim=True).clamp(min=1).double()
    goal_B1 = (share_B.double().unsqueeze(1) * num_B1).log()
    minus_a_B1 = torch.zeros_like(goal_B1)
    for _ in range(ITERATIONS):
        log_BT = (exponent_BT * minus_a_B1).masked_fill(~maskable_BT, -torch.inf)
        total_B1 = log_BT.logsumexp(1, keepdim=True)
        mean_B1 = ((log_BT - total_B1).exp() * exponent_BT).sum(1, keepdim=True)
        step_B1 = torch.where(maskable_BT.any(1, keepdim=True), (goal_B1 - total_B1) / mean_B1, 0.0)
        minus_a_B1 = (minus_a_B1 + step_B1).clamp(max=0)
        if bool((step_B1.abs() <= 1e-14 * minus_a_B1.abs().clamp(min=1)).all()):
            break
    prob_BT = torch.where(maskable_BT, (exponent_BT * minus_a_B1).exp(), 0.0)
    slope_BT = exponent_BT * num_B1 / (exponent_BT * prob_BT).sum(1, keepdim=True)
    return prob_BT, torch.where(maskable_BT, slope_BT, 0.0)


@torch.no_grad()
def water_fill(importance_BT: Tensor, maskable_BT: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """(p, d log p / ds), both (B, T) and 0 where nothing may be masked; a saturated token's slope is 0.

    Args:
        importance_BT: v, positive.
        maskable_BT: which tokens may be masked.
        share_B: s of each row, in (0, 1].
    """
    value_BT = torch.where(maskable_BT, importance_BT.double(), 0.0)
    budget_B1 = (share_B.double() * maskable_BT.sum(1)).unsqueeze(1)
    falling_BT = value_BT.sort(1, descending=True).values
    # with the n largest saturated, c is what the rest of the budget asks of the rest of the row
    rest_BT = (falling_BT.sum(1, keepdim=True) - falling_BT.cumsum(1) + falling_BT).clamp(min=1e-300)
    place_T = torch.arange(value_BT.shape[1], device=value_BT.device)
    scale_BT = (budget_B1 - place_T) / rest_BT
    fits_BT = (scale_BT * falling_BT <= 1 + 1e-12) & (scale_BT >= 0)
    first_B1 = torch.where(fits_BT, place_T, value_BT.shape[1] - 1).amin(1, keepdim=True)
    scale_B1 = scale_BT.gather(1, first_B1)
    prob_BT = (scale_B1 * value_BT).clamp(max=1.0)
    free_BT = maskable_BT & (prob_BT < 1 - 1e-12)
    left_B1 = (budget_B1 - (maskable_BT & ~free_BT).sum(1, keepdim=True)).clamp(min=1e-300)
    return prob_BT, torch.where(free_BT, maskable_BT.sum(1, keepdim=True) / left_B1, 0.0)
