"""What routers make of logits before they choose, and what is read from it: probabilities, order and margin.

N decisions, S slots, K chosen slots.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax(logits_NS: Tensor) -> Tensor:
    return logits_NS.softmax(-1)


def sigmoid(logits_NS: Tensor) -> Tensor:
    return logits_NS.sigmoid()


def sqrtsoftplus(logits_NS: Tensor) -> Tensor:
    return F.softplus(logits_NS).sqrt()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "sqrtsoftplus": sqrtsoftplus,
}
"""Name, as configs have it -> scores of logits, >= 0 and growing with the logit."""


def probabilities(logits_NS: Tensor, scores: str) -> Tensor:
    """Return a router's probabilities, float32: its scores, divided by their sum where they do not sum to one."""
    score_NS = FUNCTIONS[scores](logits_NS.float())
    return score_NS if scores == "softmax" else score_NS / score_NS.sum(-1, keepdim=True)


def are_probabilities(value_NS: Tensor) -> bool:
    """Tell whether what a router calls logits are probabilities already: none below 0, and rows that sum to one."""
    value_NS = value_NS.float()
    return bool((value_NS >= 0).all()) and bool(((value_NS.sum(-1) - 1).abs() < 1e-2).all())


def order_by(value_NK: Tensor, slot_NK: Tensor) -> Tensor:
    """Return the place of each decision's chosen slot with the largest value, the second largest, ...; (N, K).

    Places without a slot come last.
    """
    return value_NK.masked_fill(slot_NK < 0, -torch.inf).argsort(dim=1, descending=True, stable=True)


def margins(logits_NS: Tensor, slot_NK: Tensor) -> Tensor:
    """Return the smallest logit of the chosen slots minus the largest one of the others, (N,); NaN if all are chosen.

    A decision that chose nothing has NaN, too.
    """
    logits_NS = logits_NS.float()
    chosen_NK = slot_NK >= 0
    last_N = logits_NS.gather(1, slot_NK.clamp_min(0)).masked_fill(~chosen_NK, torch.inf).amin(1)
    # a scatter of -1 would wrap round; what is not chosen marks a column of its own
    num_slots = logits_NS.shape[1]
    padded_NS = F.pad(logits_NS, (0, 1), value=-torch.inf)
    best_N = padded_NS.scatter(1, slot_NK.where(chosen_NK, num_slots), -torch.inf).amax(1)
    margin_N = last_N - best_N
    return margin_N.masked_fill(~margin_N.isfinite(), torch.nan)
