"""Mixture-of-Depths (Raposo et al. 2024, 2404.02258): of each sequence a share c of the tokens runs through the block.

    x_t + r_t (run(x)_t - x_t) where t runs, x_t where it skips;   r_t = sigmoid(w . x_t)

The whole block is skipped, attention and all: a token that skips is no key for the others. skipping.py has the choice.

Decision: in training the router chooses the k = round(c T) tokens that it scores highest (expert choice), which keeps
the compute exact; and since that looks at the whole sequence, **the training loss is not that of a causal model**. In
evaluation, and when decoding with a cache, the predictor decides, token by token: one runs where its logit is above
what a share c of the training's last tokens had. (Raposo et al. ask for a probability above one half; where the
predictor is unsure, as it is early on and in deep layers, fewer would run than were paid for, or none.) That is causal,
so the reported loss is a likelihood; noted are how much of the compute it uses, and how often it says what expert
choice would have. The router learns through r alone, the predictor from its own loss alone. A Selection's probabilities
are of whoever decides: sigmoid(w . x) in training, the predictor's in evaluation, which are (1 - c, c) before it has
learned anything.

`choice: random` is the control: runs are dealt over the positions of a block, 8 by 8, in training and evaluation alike;
r is learned as before.

B blocks of T tokens, D width.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import DepthOptions
from speciate.model.depth.skipper import Choice, TokenRouter, compare, count_of, expert_choice, run_selected
from speciate.model.initial_weights import generator
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting
from speciate.selection.selection import recomputing

FOLLOWS = 0.5
"""How far the threshold goes, in a micro-batch, to where it would have let the share c of that run."""
DEAL = 8
"""Positions that a capacity is dealt over at once; multiples of 1/8 are kept exactly in blocks of a multiple of 8."""


class Options(DepthOptions):
    """How many tokens run, and who says which."""

    capacity: float = Field(0.125, gt=0, le=1)
    """Share of a sequence's tokens that run; 1: all, each with its r."""
    choice: Literal["learned", "random"] = "learned"
    """learned: by the router, and its predictor; random: by the position, as dealt once for each layer and seed."""
    hidden: int = Field(64, ge=1)
    """Units of the predictor."""
    predictor_weight: float = Field(0.01, gt=0)
    """Weight of the predictor's loss; it trains the predictor alone."""

    def check(self, model: Any) -> None:
        """Refuses a capacity of less than half a token."""
        if self.capacity * model.context < 0.5:
            raise ValueError(f"capacity: {self.capacity:g} of a context of {model.context} tokens is none of them")


def dealt(capacity: float, length: int, random: torch.Generator) -> Tensor:
    """Which positions run, (length) boolean: of each 8 as many as keep the running count at round(capacity x position).

    Which ones of the 8 is drawn.
    """
    score_T = torch.rand(length, generator=random, device="cpu")
    runs_T = torch.zeros(length, dtype=torch.bool, device="cpu")
    for start in range(0, length, DEAL):
        stop = min(start + DEAL, length)
        count = round(capacity * stop) - round(capacity * start)
        runs_T[start + score_T[start:stop].topk(count).indices] = True
    return runs_T


class Router(TokenRouter):
    """Expert choice in training, the predictor in evaluation; or as dealt in both."""

    dealt_T: Tensor | None
    threshold: Tensor

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__(place, options.capacity, options.hidden, options.predictor_weight)
        runs_T = None
        if options.choice == "random":
            runs_T = dealt(options.capacity, place.model.context, generator("mod", place.seed, place.layer))
            self.predictor = None
        self.register_buffer("dealt_T", runs_T, persistent=False)
        if self.predictor is not None:
            # of logits that are all the bias at first
            self.register_buffer("threshold", torch.tensor(options.capacity).logit())

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Choice:
        """Which tokens run."""
        logit_BT, predicted_BT = self.logits(x_BTD)
        if self.training or self.capacity == 1 or self.dealt_T is not None:
            return self.by_training(logit_BT, predicted_BT, tokens)
        assert predicted_BT is not None
        run_BT = predicted_BT > self.threshold
        return Choice(self.selection(run_BT, predicted_BT.sigmoid(), tokens), run_BT, logit_BT.sigmoid(), None)

    def by_training(self, logit_BT: Tensor, predicted_BT: Tensor | None, tokens: TokenBatch) -> Choice:
        """The choice of training."""
        length = logit_BT.shape[1]
        constant_BT = torch.full_like(logit_BT, self.capacity)
        if self.dealt_T is not None:
            # by the place in the block, not in a document: so many run in every row
            start = 0 if tokens.cache is None else tokens.cache.length
            run_T = self.dealt_T[start : start + length]
            selection = self.selection(run_T.expand_as(logit_BT), constant_BT, tokens)
            return Choice(selection, run_T.expand_as(logit_BT), logit_BT.sigmoid(), int(run_T.sum()))
        run_BT = expert_choice(logit_BT.detach(), self.capacity)
        prob_BT = logit_BT.sigmoid()
        loss = None
        if self.training:
            loss = self.loss(predicted_BT, run_BT)
            self.follow(predicted_BT)
        selection = self.selection(run_BT, constant_BT if self.capacity == 1 else prob_BT, tokens, loss)
        return Choice(selection, run_BT, prob_BT, count_of(self.capacity, length))

    @torch.no_grad()
    def follow(self, predicted_BT: Tensor | None) -> None:
        """Moves the threshold, of all processes alike; what is computed again moves nothing."""
        if predicted_BT is not None and not recomputing():
            quantile = everybodys(predicted_BT.flatten()).quantile(1 - self.capacity)
            self.threshold.lerp_(quantile.to(self.threshold), FOLLOWS)


def everybodys(value_N: Tensor) -> Tensor:
    """The values of all processes that train the run, as many of each, joined."""
    if not (dist.is_available() and dist.is_initialized()):
        return value_N
    parts = [torch.empty_like(value_N) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value_N.contiguous())
    return torch.cat(parts)


class Depth(nn.Module):
    """Runs the block on the tokens that the router chooses."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        self.router = Router(options, place)
        self.share = options.capacity
        """Of the tokens that run, in training."""
        self.causal = place.model.causal

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, run: Callable[[Tensor, TokenBatch], Tensor]) -> Tensor:
        """The block's x_BTD."""
        choice: Choice = self.router(x_BTD, tokens)
        y_BTD = run_selected(x_BTD, tokens, run, choice, self.causal)
        if is_collecting() and not self.training and tokens.cache is None:
            trained = self.router.by_training(*self.router.logits(x_BTD), tokens)
            compare(self.router, choice, trained, y_BTD, lambda: run_selected(x_BTD, tokens, run, trained, self.causal))
        return y_BTD
