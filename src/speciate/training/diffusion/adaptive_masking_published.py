"""Adaptive masking as ATAT's code has it (arrdel/mdlm-atat, commit 2df29e8), defects included; a control.

    i(x, t) = (.7 sigmoid(logit(x)) + .3 f)^(1 / (t + .1)),   f = 1: its frequency prior is uniform and never updated
    curriculum: i c, with c = 2, 1.5, 2 on tokens whose i lies in [0, .3], [.3, .7], [.7, 1], else 1, over the row's sum
    masking  importance: p = t i;   inverse: p = t (1 - i);   balanced: p = t i L / sum i;   kept in [0, 1]
    loss of the model: mean of c nats over ALL positions, visible ones too, no weight 1 / t, no SUBS
    loss of the estimator: .1 mean (i(noisy x, t) - [was masked])^2, where [MASK] can be seen in the noisy x

Prediction from the formulas alone: the estimator learns to tell whether a token is [MASK], which no clean token is. So
the masks die out, and c, which sums to one, has already divided their number by the length. Bernoulli draws pass no
other gradient. The original defines the stages' borders in four ways; here they are those of curriculum.py.

B blocks of T tokens.
"""

import torch
from torch import Tensor

from speciate.model.token_batch import TokenBatch
from speciate.training.diffusion.adaptive_masking import AdaptiveMasker, MaskProbs
from speciate.training.diffusion.curriculum import BOOSTS, RANK_EDGES
from speciate.training.diffusion.mdlm import NoisyBlocks

TIME_OFFSET = 0.1
"""Added to t before it divides."""


class PublishedAdaptiveMasker(AdaptiveMasker):
    """The selector by the original's formulas."""

    def sharpen(self, logit_BT: Tensor | None, share_B: Tensor) -> Tensor:
        """Return i(x, t), with the logits' gradient."""
        exponent_B1 = 1 / (share_B.double().unsqueeze(1) + TIME_OFFSET)
        if logit_BT is None:
            return torch.ones_like(exponent_B1)
        sharp_BT: Tensor = (self.learned_share * logit_BT.sigmoid() + (1 - self.learned_share)) ** exponent_B1
        return sharp_BT

    def mask_probs(self, tokens: TokenBatch, maskable_BT: Tensor, share_B: Tensor) -> MaskProbs:
        """Return each clean token's mask probability; `slope_BT` is the weight of its nats, masked or not."""
        logit_BT, _ = self.estimates(tokens)
        importance_BT = self.sharpen(logit_BT, share_B).detach().expand(maskable_BT.shape)
        weight_BT = maskable_BT.double()
        boosted_BT = importance_BT
        if self.borders is not None:
            stage = int(self.stage)
            in_stage_BT = (importance_BT >= RANK_EDGES[stage]) & (importance_BT <= RANK_EDGES[stage + 1])
            weight_BT = torch.where(in_stage_BT, BOOSTS[stage], 1.0) * maskable_BT
            weight_BT = weight_BT / weight_BT.sum(1, keepdim=True).clamp(min=1)
            boosted_BT = importance_BT * weight_BT
        boosted_BT = boosted_BT.where(maskable_BT, 0.0)
        share_B1, num_B1 = share_B.double().unsqueeze(1), maskable_BT.sum(1, keepdim=True)
        balanced_BT = boosted_BT * num_B1 / boosted_BT.sum(1, keepdim=True).clamp(min=1e-8)
        factors = {"importance": boosted_BT, "inverse": 1 - boosted_BT, "balanced": balanced_BT}
        factor_BT = factors.get(self.options.masking, torch.ones_like(boosted_BT))
        prob_BT = (share_B1 * factor_BT).clamp(0, 1).where(maskable_BT, 0.0)
        return MaskProbs(importance_BT, logit_BT, prob_BT, weight_BT)

    def loss(self, noisy: NoisyBlocks, probs: MaskProbs, nats_BT: Tensor, loss_mask_BT: Tensor) -> Tensor:
        """Return the estimator's loss, a scalar: its squared error on the mask bit, estimated from the noisy tokens."""
        if probs.logit_BT is None:
            return nats_BT.new_zeros(())
        tokens = TokenBatch.of(noisy.noisy_BT, noisy.document_BT)
        logit_BT, _ = self.estimator(tokens, self.surprisal(noisy.noisy_BT))
        error_BT = self.sharpen(logit_BT.double(), noisy.share_B) - noisy.masked_BT.double()
        mean = error_BT.square().where(noisy.maskable_BT, 0.0).sum() / noisy.maskable_BT.sum().clamp(min=1)
        loss: Tensor = (self.options.importance_weight * mean).to(nats_BT.dtype)
        return loss
