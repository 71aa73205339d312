"""Mixture-of-Depths (Raposo et al. 2024, 2404.02258): a share c of each sequence's tokens runs through the block.

    x_t + r_t (run(x)_t - x_t) where t runs, x_t where it skips;   r_t = sigmoid(w . x_t)

A token that skips a block skips all of it, attention included, and is not a key for the others. The kinds of
Mixture-of-Depths share skipper.py.

Decision: in training the router takes the k = round(c T) tokens with the highest scores (expert choice), so the compute
is exact. Because expert choice looks at the whole sequence, **the training loss is not that of a causal model**. In
evaluation, and when decoding with a cache, the predictor decides token by token. A token runs if its logit is above the
threshold that a share c of the last training tokens exceeded. (Raposo et al. ask for a probability above one half. An
unsure predictor, early in training and in deep layers, would then run fewer tokens than the capacity, or none.) This is
causal, so the reported loss is a likelihood. Metrics record how much of the compute evaluation uses, and how often it
agrees with expert choice. The router learns through r alone, the predictor from its own loss alone. A Selection's
probabilities are those of the part that decides: sigmoid(w . x) in training, the predictor's in evaluation. The
predictor's are (1 - c, c) before it has learned anything.

`choice: random` is the control. The positions that run are drawn once, 8 positions at a time, saved with the weights,
and are the same in training and evaluation; r is learned as before.

B blocks of T tokens, D width.
"""

import functools
from typing import Literal

import torch
import torch.distributed as dist
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
from speciate.model.initial_weights import generator
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting
from speciate.selection.selection import is_recomputing

THRESHOLD_STEP = 0.5
"""How far each micro-batch moves the threshold towards the value that would have let its share c run."""
DEAL_GROUP = 8
"""Positions that share a fixed number of runs; capacities that are multiples of 1/8 are exact in blocks of 8 n."""


class Options(TokenRouterOptions):
    """How many tokens run, and how they are chosen."""

    capacity: float = Field(0.125, gt=0, le=1)
    """Share of a sequence's tokens that run; 1: all of them, each weighted by its r."""
    choice: Literal["learned", "random"] = "learned"
    """How tokens are chosen. learned: by the router and its predictor; random: by position, drawn once for each layer
    and seed."""
    hidden: int = Field(64, ge=1)
    predictor_weight: float = Field(0.01, gt=0)


def deal_positions(capacity: float, length: int, random: torch.Generator) -> Tensor:
    """Draw which positions run, (length) boolean.

    Of each 8 positions as many run as keep the running count at round(capacity x position); which of the 8 is drawn.
    """
    score_T = torch.rand(length, generator=random, device="cpu")
    runs_T = torch.zeros(length, dtype=torch.bool, device="cpu")
    for start in range(0, length, DEAL_GROUP):
        stop = min(start + DEAL_GROUP, length)
        count = round(capacity * stop) - round(capacity * start)
        runs_T[start + score_T[start:stop].topk(count).indices] = True
    return runs_T


class Router(TokenRouter):
    """Chooses by expert choice in training and by the predictor in evaluation; or by drawn positions in both."""

    dealt_T: Tensor | None
    threshold: Tensor

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__(context, options.capacity, options.hidden, options.predictor_weight)
        runs_T = None
        if options.choice == "random":
            runs_T = deal_positions(
                options.capacity, context.model.context, generator("mod", context.seed, context.layer)
            )
            self.predictor = None
        # saved with the weights: whoever reads the run must let the same positions run as its trainer did
        self.register_buffer("dealt_T", runs_T)
        if self.predictor is not None:
            # all logits are the bias at first
            self.register_buffer("threshold", torch.tensor(options.capacity).logit())

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> TokenChoice:
        """Choose the tokens that run."""
        logit_BT, predicted_BT = self.logits(x_BTD)
        if self.training or self.capacity == 1 or self.dealt_T is not None:
            return self.training_choice(logit_BT, predicted_BT, tokens)
        assert predicted_BT is not None
        run_BT = predicted_BT > self.threshold
        if tokens.padded:
            run_BT = run_BT & tokens.real_BT
        return TokenChoice(self.selection(run_BT, predicted_BT.sigmoid(), tokens), run_BT, logit_BT.sigmoid(), None)

    def training_choice(self, logit_BT: Tensor, predicted_BT: Tensor | None, tokens: TokenBatch) -> TokenChoice:
        """Choose as in training."""
        constant_BT = torch.full_like(logit_BT, self.capacity)
        if self.dealt_T is not None:
            run_BT = self.dealt_T[tokens.position_BT]
            count: int | None = None
            if tokens.document_BT is None and not tokens.padded:
                # the tokens of all rows have the same positions
                count = int(run_BT[0].sum())
            elif tokens.padded:
                run_BT = run_BT & tokens.real_BT
            return TokenChoice(self.selection(run_BT, constant_BT, tokens), run_BT, logit_BT.sigmoid(), count)
        run_BT, count = expert_choice(logit_BT.detach(), self.capacity, tokens)
        prob_BT = logit_BT.sigmoid()
        loss = None
        if self.training:
            loss = self.loss(predicted_BT, run_BT, tokens)
            self.update_threshold(predicted_BT, tokens)
        selection = self.selection(run_BT, constant_BT if self.capacity == 1 else prob_BT, tokens, loss)
        return TokenChoice(selection, run_BT, prob_BT, count)

    @torch.no_grad()
    def update_threshold(self, predicted_BT: Tensor | None, tokens: TokenBatch) -> None:
        """Move the threshold, alike in all processes; recomputation does not move it."""
        if predicted_BT is None or is_recomputing():
            return
        if tokens.padded:
            predicted_BT = predicted_BT.masked_fill(~tokens.real_BT, torch.nan)
        predicted_N = gather_across_processes(predicted_BT.flatten())
        quantile = (predicted_N.nanquantile if tokens.padded else predicted_N.quantile)(1 - self.capacity)
        self.threshold.lerp_(quantile.to(self.threshold), THRESHOLD_STEP)


def gather_across_processes(value_N: Tensor) -> Tensor:
    """Return the values of all processes, of which each has equally many, concatenated."""
    if not (dist.is_available() and dist.is_initialized()):
        return value_N
    parts = [torch.empty_like(value_N) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value_N.contiguous())
    return torch.cat(parts)


class Depth(BlockDepth):
    """Runs the block on the tokens that the router chooses."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        self.router = Router(options, context)
        self.share = options.share_running()
        self.causal = context.model.causal

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, run: Run) -> Tensor:
        """Return the residual stream after the block, (B, T, D)."""
        choice: TokenChoice = self.router(x_BTD, tokens)
        y_BTD = run_selected(x_BTD, tokens, run, choice, causal=self.causal)
        if is_collecting() and not self.training and tokens.cache is None:
            trained = self.router.training_choice(*self.router.logits(x_BTD), tokens)
            again = functools.partial(run_selected, x_BTD, tokens, run, trained, causal=self.causal)
            record_rule_difference(self.router, choice, trained, y_BTD, run_trained=again)
        return y_BTD
