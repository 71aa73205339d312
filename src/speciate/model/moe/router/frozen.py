"""Control: a random router that never learns, with logits on the scale of a learned router's.

    l_s = logit_std sqrt(D) cos(x, w_s),   w_s a random direction, fixed

The cosine of any x with a random direction has standard deviation 1/sqrt(D). So over directions the logits have
standard deviation `logit_std` for every token and step, however the norm of x drifts in training. Set it to that of the
learned router's logits, and both report probabilities on one scale. x is detached, so neither the router nor, through
it, the model learns from the choice. The directions are the learned router's initial weights in the run of the same
seed.

N tokens, D width, S slots.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import RouterOptions
from speciate.model.moe.top_k_router import Scorer, Scores
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(RouterOptions):
    """Scale of the logits."""

    logit_std: float = Field(1.0, gt=0)
    """Standard deviation of the logits over random directions; set it to that of the learned router."""

    balanced_by: ClassVar[tuple[str, ...]] = ("choice",)


class Router(Scorer):
    """Scores tokens by their angles with fixed directions."""

    weight: Tensor

    def __init__(self, options: Options, context: BuildContext, num_slots: int) -> None:
        super().__init__()
        self.logit_std = options.logit_std
        self.register_buffer("weight", torch.empty(num_slots, context.model.width))

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """Score each token from its x alone, without gradient."""
        unit_ND = F.normalize(x_ND.detach().to(self.weight.dtype), dim=-1)
        cosine_NS = F.linear(unit_ND, F.normalize(self.weight, dim=-1))
        probs_NS = (self.logit_std * x_ND.shape[1] ** 0.5 * cosine_NS).softmax(-1)
        return Scores(probs_NS, probs_NS, None)
