"""Control: a random router that never learns, scale-matched to one that does.

    l_s = logit_std sqrt(D) cos(x, w_s),   w_s a random direction, fixed

The cosine of any x with a random direction has standard deviation 1/sqrt(D), so the logits have standard deviation
`logit_std` over directions, for every token and at every step, however the norm of x drifts while the model trains: set
it to what the learned router's logits have, and both report probabilities of one scale. x is detached, so neither the
router nor, through it, the model learns anything from the choice. The directions are those of the learned router's
initial weights in the run of the same seed.

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
    """Scale."""

    logit_std: float = Field(1.0, gt=0)
    """Standard deviation of the logits over random directions."""

    balanced_by: ClassVar[tuple[str, ...]] = ("choice",)
    """The ways of balancing that can move this router's choices."""
    scores_all_slots: ClassVar[bool] = True
    """Whether it orders all slots, so that more than one can be chosen."""


class Router(Scorer):
    """Scores by the angles with fixed directions."""

    weight: Tensor

    def __init__(self, options: Options, place: BuildContext, num_slots: int) -> None:
        super().__init__()
        self.logit_std = options.logit_std
        self.register_buffer("weight", torch.empty(num_slots, place.model.width))

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """Scores of each token by its own x alone, without gradient."""
        unit_ND = F.normalize(x_ND.detach().to(self.weight.dtype), dim=-1)
        cosine_NS = F.linear(unit_ND, F.normalize(self.weight, dim=-1))
        probs_NS = (self.logit_std * x_ND.shape[1] ** 0.5 * cosine_NS).softmax(-1)
        return Scores(probs_NS, probs_NS, None)
