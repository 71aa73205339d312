"""The learned router: a linear map without bias, and noise that fades (Shazeer et al. 2017; Fedus et al. 2021).

    l = x W^T;   l' = l + noise_std (1 - progress / noise_until) N(0, 1)   in training, while progress < noise_until

The noise lets every expert be tried before the router knows any of them; it is gone for good after `noise_until`, and
never there in evaluation.

N tokens, D width, S slots.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speciate.kinds import Kind
from speciate.model.routing import Scorer, Scores
from speciate.model.tokens import Place


class Options(Kind):
    """Noise in training."""

    noise_std: float = Field(0.0, ge=0)
    """Standard deviation of the noise on the logits at the start of training."""
    noise_until: float = Field(0.25, gt=0, le=1)
    """Share of the training after which there is none; it falls linearly to there."""

    hears: ClassVar[tuple[str, ...]] = ("gradient", "choice")
    """The ways of balancing that can move this router's choices."""
    ranks: ClassVar[bool] = True
    """Whether it orders all slots, so that more than one can be chosen."""


class Router(Scorer):
    """Scores by a linear map."""

    def __init__(self, options: Options, place: Place, num_slots: int) -> None:
        super().__init__()
        self.options = options
        self.weight = nn.Parameter(torch.empty(num_slots, place.model.width))
        self.noise_std = options.noise_std

    def before_update(self, progress: float) -> None:
        """Sets the noise of the coming step."""
        self.noise_std = self.options.noise_std * max(0.0, 1 - progress / self.options.noise_until)

    def forward(self, x_ND: Tensor, id_N: Tensor) -> Scores:
        """Scores of each token by its own x alone."""
        logits_NS = F.linear(x_ND.to(self.weight.dtype), self.weight)
        probs_NS = logits_NS.softmax(-1)
        if not self.training or self.noise_std == 0:
            return Scores(probs_NS, probs_NS, logits_NS)
        noisy_NS = (logits_NS + self.noise_std * torch.randn_like(logits_NS)).softmax(-1)
        return Scores(probs_NS, noisy_NS, logits_NS)
