"""The selector of adaptive masking (ATAT): it says how important each token is, and so how likely it is masked.

A kind of training/diffusion/importance offers `Importance(options, place)`, a module (tokens, surprisal_BT) -> (logit_BT,
known_BT): what it learns, and nats that it knows; one may be None, and `options.learned_share()` is the learned one's. Here

    importance_i = share ln V softplus(logit_i) + (1 - share) known_i           nats, without gradient
    v_i = importance_i / mean of the row, kept in [1/cap, cap]; the curriculum multiplies some (curriculum.py)
    masking importance: p_i = tau^(1/v_i);  inverse: p_i = tau^(v_i);  balanced: p_i = min(1, c v_i);  uniform: p_i = s
    loss = importance_weight mean_{i masked} ((ln V softplus(logit_i) - sg[nats_i]) / ln V)^2

with tau or c such that each row has the s L masks that it was to have (rates.py): an importance moves masks from token
to token, and neither it nor the curriculum changes how many there are. Everything is by row: no block depends on
another one of its batch. The estimator sees clean tokens; published.py has what the original does instead.

B blocks of T tokens, N of all maskable, V words, [MASK] aside.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting, record_metric
from speciate.selection.selection import Selection, Selector, recomputing
from speciate.training.diffusion import mask_probabilities
from speciate.training.diffusion.curriculum import BORDERS, focused, stage_at
from speciate.training.diffusion.mdlm import Noised

EDGE = 1e-3
"""A token whose chance is nearer than this to 0 or 1 counts as decided beforehand."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskProbs:
    """What the importance makes of a batch's tokens."""

    importance_BT: Tensor
    """Without gradient; nats, or as published a number in [0, 1]."""
    logit_BT: Tensor | None
    """The estimator's, with gradient; None where nothing is learned."""
    prob_BT: Tensor
    """How likely each token is masked; 0 where it may not be."""
    slope_BT: Tensor
    """d log p / d s, which times the slope of s in time is the weight of its nats."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskerOutput:
    """What a call of the selector gives: its report."""

    selection: Selection


class AdaptiveMasker(Selector):
    """Slots: keep, mask. One decision a maskable token."""

    num_slots = 2
    count_V: Tensor
    seen_V: Tensor
    stage: Tensor

    def __init__(self, options: Any, place: BuildContext) -> None:
        super().__init__()
        self.options, self.share = options, options.importance.learned_share()
        self.estimator = options.importance.component().Importance(options.importance, place)
        self.borders = options.borders or BORDERS.get(options.curriculum)
        self.uniform_nll = math.log(place.vocabulary - 1)
        self.register_buffer("count_V", torch.zeros(place.vocabulary, dtype=torch.float64))
        self.register_buffer("seen_V", torch.zeros(place.vocabulary, dtype=torch.float64))
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))

    def before_update(self, progress: float) -> None:
        """Moves the curriculum; the stage is part of the state, so that a finished model is seen in its last one."""
        if self.borders is not None:
            self.stage.fill_(stage_at(self.borders, progress))

    def after_update(self) -> None:
        """Adds the step's tokens, of all processes, to those counted."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.seen_V)
        self.count_V += self.seen_V
        self.seen_V.zero_()

    def surprisal(self, token_BT: Tensor) -> Tensor:
        """-log of each token's frequency in training so far, one added to every count; ln V before the first step."""
        count_V = self.count_V + 1
        return (count_V.sum() / count_V).log()[token_BT]

    def estimates(self, tokens: TokenBatch) -> tuple[Tensor | None, Tensor | None]:
        """(logits with gradient, known nats), in float32 or better; counts the tokens in training."""
        if self.training and not recomputing():
            self.seen_V += torch.bincount(tokens.id_BT.flatten(), minlength=len(self.seen_V))
        logit_BT, known_BT = self.estimator(tokens, self.surprisal(tokens.id_BT))
        return None if logit_BT is None else logit_BT.double(), known_BT

    def rate(self, tokens: TokenBatch, maskable_BT: Tensor, share_B: Tensor) -> MaskProbs:
        """How likely each clean token is masked where a share `share_B` of its row is to be."""
        logit_BT, known_BT = self.estimates(tokens)
        importance_BT = torch.zeros(maskable_BT.shape, dtype=torch.float64, device=maskable_BT.device)
        if logit_BT is not None:
            importance_BT = importance_BT + self.share * self.uniform_nll * F.softplus(logit_BT.detach())
        if known_BT is not None:
            importance_BT = importance_BT + (1 - self.share) * known_BT
        value_BT = self.values(importance_BT, maskable_BT)
        exponents = {"importance": 1 / value_BT, "inverse": value_BT}
        if self.options.masking in exponents:
            found = mask_probabilities.power(exponents[self.options.masking], maskable_BT, share_B)
        elif self.options.masking == "balanced":
            found = mask_probabilities.water_fill(value_BT, maskable_BT, share_B)
        else:
            found = mask_probabilities.uniform(maskable_BT, share_B)
        return MaskProbs(importance_BT, logit_BT, *found)

    def values(self, importance_BT: Tensor, maskable_BT: Tensor) -> Tensor:
        """v: over its row's mean, bounded, and as the curriculum has it."""
        if self.borders is not None:
            importance_BT = focused(importance_BT, maskable_BT, int(self.stage))
        total_B1 = importance_BT.where(maskable_BT, 0.0).sum(1, keepdim=True)
        mean_B1 = total_B1 / maskable_BT.sum(1, keepdim=True).clamp(min=1)
        return (importance_BT / mean_B1.clamp(min=1e-9)).clamp(1 / self.options.cap, self.options.cap)

    def loss(self, noised: Noised, rated: MaskProbs, nats_BT: Tensor, loss_mask_BT: Tensor) -> Tensor:
        """What the estimator learns from, a scalar: the nats of the tokens that were told."""
        if rated.logit_BT is None:
            return nats_BT.new_zeros(())
        off_BT = F.softplus(rated.logit_BT) - nats_BT.detach().double() / self.uniform_nll
        mean = off_BT.square().where(loss_mask_BT, 0.0).sum() / loss_mask_BT.sum().clamp(min=1)
        loss: Tensor = (self.options.importance_weight * mean).to(nats_BT.dtype)
        return loss

    def forward(self, noised: Noised, rated: MaskProbs, nats_BT: Tensor, loss_mask_BT: Tensor) -> MaskerOutput:
        """The report.

        Args:
            noised: the batch with its masks.
            rated: what `rate` said of it.
            nats_BT: -log p of tokens.
            told_BT: of which tokens, so of those that the estimator learns from.
        """
        if is_collecting():
            self.report(noised, rated, nats_BT)
        at_N = noised.maskable_BT.flatten().nonzero().squeeze(1)
        prob_N = rated.prob_BT.flatten()[at_N]
        share_N = noised.share_B.double().unsqueeze(1).expand_as(rated.prob_BT).flatten()[at_N]
        mask_N = noised.masked_BT.flatten()[at_N].double()
        selection = Selection(
            probs_NS=torch.stack([1 - prob_N, prob_N], 1),
            chosen_NS=torch.stack([1 - mask_N, mask_N], 1),
            null_NS=torch.stack([1 - share_N, share_N], 1),
            token_N=at_N,
            loss=self.loss(noised, rated, nats_BT, loss_mask_BT),
        )
        return MaskerOutput(selection)

    def report(self, noised: Noised, rated: MaskProbs, nats_BT: Tensor) -> None:
        """Notes how the importance is spread, what it goes with, and what became of the budget."""
        where_BT, prob_BT, importance_BT = noised.maskable_BT, rated.prob_BT, rated.importance_BT
        num_B = where_BT.sum(1)
        for share in noised.share_B.unique().tolist():
            record_metric(self, "mask_rate", prob_BT[where_BT & (noised.share_B == share).unsqueeze(1)], at=share)
        rows_B = num_B > 1
        record_metric(self, "mask_budget", (prob_BT.sum(1) / (noised.share_B * num_B))[rows_B])
        decided_BT = (prob_BT - 0.5).abs() > 0.5 - EDGE
        record_metric(self, "saturated_share", decided_BT[where_BT].double())
        kept_BT = importance_BT.where(where_BT, 0.0)
        part_BT = kept_BT / kept_BT.sum(1, keepdim=True)
        record_metric(self, "importance_entropy", (-part_BT.xlogy(part_BT).sum(1) / num_B.log())[rows_B])
        spread_B = (importance_BT - kept_BT.sum(1, keepdim=True) / num_B.unsqueeze(1)).square().where(where_BT, 0.0)
        record_metric(self, "importance_std", (spread_B.sum(1) / num_B).sqrt()[rows_B])
        record_metric(self, "stage", float(self.stage))
        frequency_BT = -self.surprisal(noised.token_BT)
        record_metric(
            self, "importance_loss_correlation", correlations(importance_BT, nats_BT.double(), noised.masked_BT)
        )
        record_metric(self, "importance_frequency_correlation", correlations(importance_BT, frequency_BT, where_BT))


def correlations(x_BT: Tensor, y_BT: Tensor, where_BT: Tensor) -> Tensor:
    """Pearson's r within each row, over the tokens `where`; 0 where one of the two is constant. Rows of 3 at least."""
    num_B = where_BT.sum(1)
    rows = []
    for value_BT in (x_BT, y_BT):
        mean_B1 = value_BT.where(where_BT, 0.0).sum(1, keepdim=True) / num_B.unsqueeze(1).clamp(min=1)
        rows.append((value_BT - mean_B1).where(where_BT, 0.0))
    x_BT, y_BT = rows
    scale_B = (x_BT.square().sum(1) * y_BT.square().sum(1)).sqrt()
    r_B = torch.where(scale_B > 1e-12, (x_BT * y_BT).sum(1) / scale_B.clamp(min=1e-12), 0.0)
    return r_B[num_B >= 3]
