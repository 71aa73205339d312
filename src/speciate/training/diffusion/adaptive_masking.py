"""Adaptive masking (ATAT): the selector that estimates each token's importance and derives its mask probability.

A kind of training/diffusion/importance offers `Importance(options, context)`, a module (tokens, surprisal_BT) ->
(logit_BT, known_BT): a learned estimate, and nats that it knows. One of the two may be None, and
`options.learned_share()` is the weight of the learned one. Here

    importance_i = share ln V softplus(logit_i) + (1 - share) known_i           nats, without gradient
    v_i = importance_i / mean of the row, kept in [1/cap, cap]; the curriculum multiplies some (curriculum.py)
    masking importance: p_i = tau^(1/v_i);  inverse: p_i = tau^(v_i);  balanced: p_i = min(1, c v_i);  uniform: p_i = s
    loss = importance_weight mean_{i masked} ((ln V softplus(logit_i) - sg[nats_i]) / ln V)^2

tau or c is such that each row has s L expected masks (mask_probabilities.py). An importance thus moves masks from token
to token; neither it nor the curriculum changes how many there are. Everything is computed by row, so no block depends
on another block of its batch. The estimator sees clean tokens; adaptive_masking_published.py is the original.

B blocks of T tokens, N maskable ones in total, V token ids without [MASK].
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
from speciate.selection.selection import Selection, Selector, is_recomputing
from speciate.training.diffusion import mask_probabilities
from speciate.training.diffusion.curriculum import BORDERS, boost_stage_tokens, stage_at
from speciate.training.diffusion.mdlm import NoisyBlocks

DECIDED_MARGIN = 1e-3
"""A mask probability nearer than this to 0 or 1 counts as saturated."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskProbs:
    """The mask probabilities of a batch's tokens, and what they follow from."""

    importance_BT: Tensor
    """Importance without gradient, in nats, or in [0, 1] as published."""
    logit_BT: Tensor | None
    """The estimator's logits, with gradient; None where nothing is learned."""
    prob_BT: Tensor
    """Probability that each token is masked; 0 where it may not be."""
    slope_BT: Tensor
    """d log p / d s; times the slope of s in time it is the weight of the token's nats."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskerOutput:
    """The result of calling the selector."""

    selection: Selection


class AdaptiveMasker(Selector):
    """The selector: its slots are keep and mask, and it takes one decision for each maskable token."""

    num_slots = 2
    count_V: Tensor
    seen_V: Tensor
    stage: Tensor

    def __init__(self, options: Any, context: BuildContext) -> None:
        super().__init__()
        self.options, self.learned_share = options, options.importance.learned_share()
        self.estimator = options.importance.component().Importance(options.importance, context)
        self.borders = options.borders or BORDERS.get(options.curriculum)
        self.uniform_nll = math.log(context.vocabulary - 1)
        self.register_buffer("count_V", torch.zeros(context.vocabulary, dtype=torch.float64))
        self.register_buffer("seen_V", torch.zeros(context.vocabulary, dtype=torch.float64))
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))

    def before_update(self, progress: float) -> None:
        """Set the curriculum's stage; it is part of the state, so that evaluation uses a finished model's last one."""
        if self.borders is not None:
            self.stage.fill_(stage_at(self.borders, progress))

    def after_update(self) -> None:
        """Add the step's tokens, of all processes, to the counts."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.seen_V)
        self.count_V += self.seen_V
        self.seen_V.zero_()

    def surprisal(self, token_BT: Tensor) -> Tensor:
        """Return -log of each token's frequency in training so far, with one added to every count.

        Before the first step it is ln V everywhere.
        """
        count_V = self.count_V + 1
        return (count_V.sum() / count_V).log()[token_BT]

    def estimates(self, tokens: TokenBatch) -> tuple[Tensor | None, Tensor | None]:
        """Return (logits with gradient, known nats), in float32 or better; in training, count the tokens."""
        if self.training and not is_recomputing():
            self.seen_V += torch.bincount(tokens.id_BT.flatten(), minlength=len(self.seen_V))
        logit_BT, known_BT = self.estimator(tokens, self.surprisal(tokens.id_BT))
        return None if logit_BT is None else logit_BT.double(), known_BT

    def mask_probs(self, tokens: TokenBatch, maskable_BT: Tensor, share_B: Tensor) -> MaskProbs:
        """Return each clean token's mask probability, where a share `share_B` of its row is to be masked."""
        logit_BT, known_BT = self.estimates(tokens)
        importance_BT = torch.zeros(maskable_BT.shape, dtype=torch.float64, device=maskable_BT.device)
        if logit_BT is not None:
            importance_BT = importance_BT + self.learned_share * self.uniform_nll * F.softplus(logit_BT.detach())
        if known_BT is not None:
            importance_BT = importance_BT + (1 - self.learned_share) * known_BT
        value_BT = self.relative_importance(importance_BT, maskable_BT)
        exponents = {"importance": 1 / value_BT, "inverse": value_BT}
        if self.options.masking in exponents:
            probs = mask_probabilities.power_probs(exponents[self.options.masking], maskable_BT, share_B)
        elif self.options.masking == "balanced":
            probs = mask_probabilities.proportional_probs(value_BT, maskable_BT, share_B)
        else:
            probs = mask_probabilities.uniform_probs(maskable_BT, share_B)
        return MaskProbs(importance_BT, logit_BT, *probs)

    def relative_importance(self, importance_BT: Tensor, maskable_BT: Tensor) -> Tensor:
        """Return v: the importance after the curriculum, divided by its row's mean and bounded by the cap."""
        if self.borders is not None:
            importance_BT = boost_stage_tokens(importance_BT, maskable_BT, int(self.stage))
        total_B1 = importance_BT.where(maskable_BT, 0.0).sum(1, keepdim=True)
        mean_B1 = total_B1 / maskable_BT.sum(1, keepdim=True).clamp(min=1)
        return (importance_BT / mean_B1.clamp(min=1e-9)).clamp(1 / self.options.cap, self.options.cap)

    def loss(self, noisy: NoisyBlocks, probs: MaskProbs, nats_BT: Tensor, loss_mask_BT: Tensor) -> Tensor:
        """Return the estimator's loss, a scalar: its squared error on the nats of the tokens in `loss_mask_BT`."""
        if probs.logit_BT is None:
            return nats_BT.new_zeros(())
        error_BT = F.softplus(probs.logit_BT) - nats_BT.detach().double() / self.uniform_nll
        mean = error_BT.square().where(loss_mask_BT, 0.0).sum() / loss_mask_BT.sum().clamp(min=1)
        loss: Tensor = (self.options.importance_weight * mean).to(nats_BT.dtype)
        return loss

    def forward(self, noisy: NoisyBlocks, probs: MaskProbs, nats_BT: Tensor, loss_mask_BT: Tensor) -> MaskerOutput:
        """Report the decisions and the estimator's loss.

        Args:
            noisy: the batch with its masks.
            probs: the mask probabilities that it was made with.
            nats_BT: -log p of tokens.
            loss_mask_BT: which tokens have such nats, so that the estimator learns from them.
        """
        if is_collecting():
            self.record_metrics(noisy, probs, nats_BT)
        index_N = noisy.maskable_BT.flatten().nonzero().squeeze(1)
        prob_N = probs.prob_BT.flatten()[index_N]
        share_N = noisy.share_B.double().unsqueeze(1).expand_as(probs.prob_BT).flatten()[index_N]
        mask_N = noisy.masked_BT.flatten()[index_N].double()
        selection = Selection(
            probs_NS=torch.stack([1 - prob_N, prob_N], 1),
            chosen_NS=torch.stack([1 - mask_N, mask_N], 1),
            null_NS=torch.stack([1 - share_N, share_N], 1),
            token_N=index_N,
            loss=self.loss(noisy, probs, nats_BT, loss_mask_BT),
        )
        return MaskerOutput(selection)

    def record_metrics(self, noisy: NoisyBlocks, probs: MaskProbs, nats_BT: Tensor) -> None:
        """Record the spread of the importance, its correlations, and how the mask budget was kept."""
        maskable_BT, prob_BT, importance_BT = noisy.maskable_BT, probs.prob_BT, probs.importance_BT
        num_B = maskable_BT.sum(1)
        for share in noisy.share_B.unique().tolist():
            in_rows_BT = maskable_BT & (noisy.share_B == share).unsqueeze(1)
            record_metric(self, "mask_rate", prob_BT[in_rows_BT], at=share)
        rows_B = num_B > 1
        record_metric(self, "mask_budget", (prob_BT.sum(1) / (noisy.share_B * num_B))[rows_B])
        saturated_BT = (prob_BT - 0.5).abs() > 0.5 - DECIDED_MARGIN
        record_metric(self, "saturated_share", saturated_BT[maskable_BT].double())
        kept_BT = importance_BT.where(maskable_BT, 0.0)
        share_BT = kept_BT / kept_BT.sum(1, keepdim=True)
        record_metric(self, "importance_entropy", (-share_BT.xlogy(share_BT).sum(1) / num_B.log())[rows_B])
        mean_B1 = kept_BT.sum(1, keepdim=True) / num_B.unsqueeze(1)
        square_BT = (importance_BT - mean_B1).square().where(maskable_BT, 0.0)
        record_metric(self, "importance_std", (square_BT.sum(1) / num_B).sqrt()[rows_B])
        record_metric(self, "stage", float(self.stage))
        frequency_BT = -self.surprisal(noisy.token_BT)
        with_loss_B = row_correlations(importance_BT, nats_BT.double(), noisy.masked_BT)
        record_metric(self, "importance_loss_correlation", with_loss_B)
        with_frequency_B = row_correlations(importance_BT, frequency_BT, maskable_BT)
        record_metric(self, "importance_frequency_correlation", with_frequency_B)


def row_correlations(x_BT: Tensor, y_BT: Tensor, where_BT: Tensor) -> Tensor:
    """Return Pearson's r over the tokens `where_BT` of each row that has at least 3 of them.

    Where x or y is constant, r is 0.
    """
    num_B = where_BT.sum(1)
    centred = []
    for value_BT in (x_BT, y_BT):
        mean_B1 = value_BT.where(where_BT, 0.0).sum(1, keepdim=True) / num_B.unsqueeze(1).clamp(min=1)
        centred.append((value_BT - mean_B1).where(where_BT, 0.0))
    x_BT, y_BT = centred
    scale_B = (x_BT.square().sum(1) * y_BT.square().sum(1)).sqrt()
    r_B = torch.where(scale_B > 1e-12, (x_BT * y_BT).sum(1) / scale_B.clamp(min=1e-12), 0.0)
    return r_B[num_B >= 3]
