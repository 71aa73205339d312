"""The learned router: a linear map without bias or a small network (Shazeer et al. 2017; Fedus et al. 2021).

    l = x W^T                        shape: linear
    l = silu(x W_h^T) W^T            shape: mlp, one hidden layer (as moe_arch has it, 128 units)

    p = softmax(l)                   gate: softmax;   weights are made of p
    p = s / sum s,  s = sigmoid(l)   gate: sigmoid;   choice and weights use s (DeepSeek-V3, 2412.19437)

    l' = l + noise_std (1 - progress / noise_until) N(0, 1)    noise: annealed, if progress < noise_until
    l' = l + softplus(x W_n^T) N(0, 1)                         noise: learned, a scale for each slot and token

The noise makes the router try every slot before it knows any of them. Annealed noise ends at `noise_until`. Learned
noise begins with W_n = 0, and the router learns its scale (Shazeer et al. 2017, eq. 4). Evaluation has no noise.

N tokens, D width, S slots, H hidden units.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from speciate.config.contracts.model import RouterOptions
from speciate.model.module_hooks import DrawsOwnWeights
from speciate.model.moe.top_k_router import Scorer, Scores
from speciate.model.token_batch import BuildContext, TokenBatch


class Options(RouterOptions):
    """Shape, gate, and noise in training."""

    shape: Literal["linear", "mlp"] = "linear"
    """Form of the router. linear: one matrix; mlp: one hidden layer of SiLU units."""
    hidden: int = Field(128, ge=1)
    """Number of hidden units of an mlp."""
    gate: Literal["softmax", "sigmoid"] = "softmax"
    """Gate function. softmax: slots compete; sigmoid: each slot is scored by itself."""
    noise: Literal["annealed", "learned"] = "annealed"
    """Noise on the logits in training. annealed: falls from `noise_std` to 0; learned: its scale is learned."""
    noise_std: float = Field(0.0, ge=0)
    """Standard deviation of annealed noise on the logits at the start of training."""
    noise_until: float = Field(0.25, gt=0, le=1)
    """Share of the training at which annealed noise ends; it falls linearly until then."""

    balanced_by: ClassVar[tuple[str, ...]] = ("gradient", "choice")

    @model_validator(mode="after")
    def _one_noise(self) -> Self:
        if self.noise == "learned" and self.noise_std:
            raise ValueError(f"noise_std: {self.noise_std:g} is for annealed noise; learned noise learns its scale")
        return self


class Router(DrawsOwnWeights, Scorer):
    """Scores tokens by a trained matrix or network."""

    def __init__(self, options: Options, context: BuildContext, num_slots: int) -> None:
        super().__init__()
        width = context.model.width
        self.options = options
        inputs = options.hidden if options.shape == "mlp" else width
        self.weight = nn.Parameter(torch.empty(num_slots, inputs))
        self.hidden_weight = nn.Parameter(torch.empty(inputs, width)) if options.shape == "mlp" else None
        self.noise_weight = nn.Parameter(torch.empty(num_slots, width)) if options.noise == "learned" else None
        self.noise_std = options.noise_std

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Set W_n = 0, so that learned noise begins with the same scale everywhere, softplus(0) = ln 2."""
        if self.noise_weight is not None:
            self.noise_weight.zero_()

    def before_update(self, progress: float) -> None:
        """Set the noise of the coming step."""
        self.noise_std = self.options.noise_std * max(0.0, 1 - progress / self.options.noise_until)

    def forward(self, x_ND: Tensor, tokens: TokenBatch) -> Scores:
        """Score each token from its x alone."""
        x_ND = x_ND.to(self.weight.dtype)
        hidden_NH = x_ND if self.hidden_weight is None else F.silu(F.linear(x_ND, self.hidden_weight))
        logits_NS = F.linear(hidden_NH, self.weight)
        probs_NS, gate_NS = self.gates(logits_NS)
        noisy_NS = probs_NS
        if self.training and self.noise_weight is not None:
            scale_NS = F.softplus(F.linear(x_ND, self.noise_weight))
            noisy_NS, gate_NS = self.gates(logits_NS + scale_NS * torch.randn_like(logits_NS))
        elif self.training and self.noise_std:
            noisy_NS, gate_NS = self.gates(logits_NS + self.noise_std * torch.randn_like(logits_NS))
        return Scores(probs_NS, noisy_NS, logits_NS, gate_NS, matrix_SD=self.weight)

    def gates(self, logits_NS: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return probabilities, whose rows sum to one, and the gates if they are not the probabilities."""
        if self.options.gate == "softmax":
            return logits_NS.softmax(-1), None
        gate_NS = logits_NS.sigmoid()
        return gate_NS / gate_NS.sum(-1, keepdim=True), gate_NS
