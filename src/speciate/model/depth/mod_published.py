"""Mixture-of-Depths as moe_arch released it (commit ad29f66): the feed-forward layer alone is skipped.

    training:    h_t + w_t FFN(norm(h_t)) for the k = round(c T) tokens with the largest l_t,   w = softmax over those k
                 l_t = w . norm(h_t), here without the norm's gain, which w can hold
    evaluation:  h_t + FFN(norm(h_t)) for every token, whatever l_t

Predicted to fail: w has mean 1/k exactly, so in training the layer is all but off, and in evaluation, where it is
bypassed, it is k times as strong; their logits differ by as much as there is. The predictor of who is among the k is
trained, as there, and never asked. A Selection in evaluation says what is done there: all run, with certainty.

B blocks of T tokens, D width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import DepthOptions
from speciate.model.depth.skipper import Choice, TokenRouter, compare, count_of, expert_choice, run_selected
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting, record_metric


class Options(DepthOptions):
    """How many tokens run in training."""

    capacity: float = Field(0.75, gt=0, le=1)
    """Share of a sequence's tokens that run in training."""
    hidden: int = Field(128, ge=1)
    """Units of the predictor."""
    predictor_weight: float = Field(0.001, gt=0)
    """Weight of the predictor's loss; it trains the predictor alone."""

    def check(self, model: Any) -> None:
        """Refuses a capacity of less than half a token."""
        if self.capacity * model.context < 0.5:
            raise ValueError(f"capacity: {self.capacity:g} of a context of {model.context} tokens is none of them")


class Router(TokenRouter):
    """Expert choice in training; everything in evaluation."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__(place, options.capacity, options.hidden, options.predictor_weight)
        self.layer_norm = place.model.norm == "layer"

    def logits(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """(l, m) of the normed x, each (B, T)."""
        norm = F.layer_norm if self.layer_norm else F.rms_norm
        return super().logits(norm(x_BTD, x_BTD.shape[-1:]))

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Choice:
        """Which tokens run."""
        if self.training:
            return self.by_training(*self.logits(x_BTD), tokens)
        one_BT = torch.ones(x_BTD.shape[:2], dtype=self.scorer.weight.dtype, device=x_BTD.device)
        run_BT = one_BT.bool()
        return Choice(self.selection(run_BT, one_BT, tokens), run_BT, one_BT, run_BT.shape[1])

    def by_training(self, logit_BT: Tensor, predicted_BT: Tensor | None, tokens: TokenBatch) -> Choice:
        """The choice of training, with its weights."""
        run_BT = expert_choice(logit_BT.detach(), self.capacity)
        gate_BT = logit_BT.masked_fill(~run_BT, -torch.inf).softmax(-1)
        prob_BT = torch.ones_like(logit_BT) if self.capacity == 1 else logit_BT.sigmoid()
        selection = self.selection(run_BT, prob_BT, tokens, self.loss(predicted_BT, run_BT))
        return Choice(selection, run_BT, gate_BT, count_of(self.capacity, run_BT.shape[1]))


class Depth(nn.Module):
    """Runs the feed-forward layer on the tokens that the router chooses, in training."""

    wraps_ffn = True
    """The mixer runs on all tokens before it."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        self.router = Router(options, place)
        self.share = options.capacity
        """Of the tokens that run, in training."""

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, run: Callable[[Tensor, TokenBatch], Tensor]) -> Tensor:
        """The block's x_BTD, of that behind the mixer; `run` adds the feed-forward layer."""
        choice: Choice = self.router(x_BTD, tokens)
        if self.training:
            return run_selected(x_BTD, tokens, run, choice)
        y_BTD = run(x_BTD, tokens)
        if is_collecting() and tokens.cache is None:
            logit_BT, predicted_BT = self.router.logits(x_BTD)
            trained = self.router.by_training(logit_BT, predicted_BT, tokens)
            if predicted_BT is not None:
                record_metric(self.router, "predictor_agreement", ((predicted_BT > 0) == trained.run_BT).double())
            compare(self.router, choice, trained, y_BTD, lambda: run_selected(x_BTD, tokens, run, trained))
        return y_BTD
