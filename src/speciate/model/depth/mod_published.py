"""Mixture-of-Depths as moe_arch released it (commit ad29f66): tokens skip the feed-forward layer alone.

    training:    h_t + w_t FFN(norm(h_t)) for the k = round(c T) tokens with the largest l_t,   w = softmax over those k
                 l_t = w . norm(h_t), here without the norm's gain, which w can hold
    evaluation:  h_t + FFN(norm(h_t)) for every token, whatever l_t

We predict that it fails. The mean of w is exactly 1/k, so training all but switches the layer off. Evaluation bypasses
w and makes the layer k times as strong, so the two rules give very different logits. As in the release, the predictor
of which tokens are among the k is trained and never used. In evaluation a Selection reports what happens there: all
tokens run, with probability 1.

B blocks of T tokens, D width.
"""

import functools
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from speciate.model.depth.skipper import (
    TokenChoice,
    TokenRouter,
    expert_choice,
    record_rule_difference,
    run_selected,
)
from speciate.model.depth.token_router_options import TokenRouterOptions
from speciate.model.depth_base import BlockDepth, Run
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting, record_metric


class Options(TokenRouterOptions):
    """How many tokens run in training."""

    capacity: float = Field(0.75, gt=0, le=1)
    """Share of a sequence's tokens that run in training."""
    hidden: int = Field(128, ge=1)
    predictor_weight: float = Field(0.001, gt=0)


class Router(TokenRouter):
    """Chooses by expert choice in training, and lets every token run in evaluation."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__(context, options.capacity, options.hidden, options.predictor_weight)
        self.layer_norm = context.model.norm == "layer"

    def logits(self, x_BTD: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (l, m) of the normalised x, each (B, T)."""
        norm = F.layer_norm if self.layer_norm else F.rms_norm
        return super().logits(norm(x_BTD, x_BTD.shape[-1:]))

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> TokenChoice:
        """Choose the tokens that run."""
        if self.training:
            return self.training_choice(*self.logits(x_BTD), tokens)
        one_BT = torch.ones(x_BTD.shape[:2], dtype=self.scorer.weight.dtype, device=x_BTD.device)
        run_BT = one_BT.bool()
        return TokenChoice(self.selection(run_BT, one_BT, tokens), run_BT, one_BT, run_BT.shape[1])

    def training_choice(self, logit_BT: Tensor, predicted_BT: Tensor | None, tokens: TokenBatch) -> TokenChoice:
        """Choose as in training, with its weights."""
        run_BT, count = expert_choice(logit_BT.detach(), self.capacity, tokens)
        # a row of padding alone has none of the k, and a softmax over nothing would be no number
        left_out_BT = ~run_BT & run_BT.any(1, keepdim=True)
        gate_BT = logit_BT.masked_fill(left_out_BT, -torch.inf).softmax(-1)
        prob_BT = torch.ones_like(logit_BT) if self.capacity == 1 else logit_BT.sigmoid()
        selection = self.selection(run_BT, prob_BT, tokens, self.loss(predicted_BT, run_BT, tokens))
        return TokenChoice(selection, run_BT, gate_BT, count)


class Depth(BlockDepth):
    """Runs the feed-forward layer on the tokens that the router chooses in training."""

    wraps_ffn: ClassVar[bool] = True

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        self.router = Router(options, context)
        self.share = options.share_running()

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, run: Run) -> Tensor:
        """Return the residual stream after the block; x_BTD is that after the mixer, `run` the feed-forward layer."""
        choice: TokenChoice = self.router(x_BTD, tokens)
        if self.training:
            return run_selected(x_BTD, tokens, run, choice)
        y_BTD = run(x_BTD, tokens)
        if is_collecting() and tokens.cache is None:
            logit_BT, predicted_BT = self.router.logits(x_BTD)
            trained = self.router.training_choice(logit_BT, predicted_BT, tokens)
            if predicted_BT is not None:
                record_metric(self.router, "predictor_agreement", ((predicted_BT > 0) == trained.run_BT).double())
            again = functools.partial(run_selected, x_BTD, tokens, run, trained)
            record_rule_difference(self.router, choice, trained, y_BTD, run_trained=again)
        return y_BTD
