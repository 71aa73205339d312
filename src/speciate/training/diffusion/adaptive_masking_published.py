"""Adaptive masking as the code of ATAT has it (arrdel/mdlm-atat, commit 2df29e8), with its defects; a control.

    i(x, t) = (.7 sigmoid(logit(x)) + .3 f)^(1 / (t + .1)),   f = 1: its frequency prior is uniform and never updated
    curriculum: i c, with c = 2, 1.5, 2 on tokens whose i lies in [0, .3], [.3, .7], [.7, 1], else 1, over the row's sum
    masking  importance: p = t i;   inverse: p = t (1 - i);   balanced: p = t i L / sum i;   kept in [0, 1]
    loss of the model: mean of c nats over ALL positions, visible ones too, no weight 1 / t, no SUBS
    loss of the estimator: .1 mean (i(noisy x, t) - [was masked])^2, where [MASK] can be seen in the noisy x

What is predicted, from that alone: the estimator learns to tell whether a token is [MASK], which no clean token is; so
the masks die out, and c, which sums to one, has already divided their number by the length. Bernoulli draws let no
other gradient through. Theirs has four definitions of the stages' borders; here it has curriculum.py's one.

B blocks of T tokens.
"""

import torch
from torch import Tensor

from speciate.model.token_batch import TokenBatch
from speciate.training.diffusion.adaptive_masking import AdaptiveMasker, MaskProbs
from speciate.training.diffusion.curriculum import CLASSES, FACTORS
from speciate.training.diffusion.mdlm import Noised

SOFTENED = 0.1
"""Added to t before it divides."""


class PublishedAdaptiveMasker(AdaptiveMasker):
    """The same selector by their formulas."""

    def sharpened(self, logit_BT: Tensor | None, share_B: Tensor) -> Tensor:
        """i(x, t), from logits with their gradient."""
        power_B1 = 1 / (share_B.double().unsqueeze(1) + SOFTENED)
        if logit_BT is None:
            return torch.ones_like(power_B1)
        sharp_BT: Tensor = (self.share * logit_BT.sigmoid() + (1 - self.share)) ** power_B1
        return sharp_BT

    def rate(self, tokens: TokenBatch, maskable_BT: Tensor, share_B: Tensor) -> MaskProbs:
        """How likely each clean token is masked; `slope_BT` is what its nats weigh, masked or not."""
        logit_BT, _ = self.estimates(tokens)
        importance_BT = self.sharpened(logit_BT, share_B).detach().expand(maskable_BT.shape)
        weight_BT = maskable_BT.double()
        focused_BT = importance_BT
        if self.borders is not None:
            stage = int(self.stage)
            own_BT = (importance_BT >= CLASSES[stage]) & (importance_BT <= CLASSES[stage + 1])
            weight_BT = torch.where(own_BT, FACTORS[stage], 1.0) * maskable_BT
            weight_BT = weight_BT / weight_BT.sum(1, keepdim=True).clamp(min=1)
            focused_BT = importance_BT * weight_BT
        focused_BT = focused_BT.where(maskable_BT, 0.0)
        share_B1, num_B1 = share_B.double().unsqueeze(1), maskable_BT.sum(1, keepdim=True)
        balanced_BT = focused_BT * num_B1 / focused_BT.sum(1, keepdim=True).clamp(min=1e-8)
        ways = {"importance": focused_BT, "inverse": 1 - focused_BT, "balanced": balanced_BT}
        factor_BT = ways.get(self.options.masking, torch.ones_like(focused_BT))
        prob_BT = (share_B1 * factor_BT).clamp(0, 1).where(maskable_BT, 0.0)
        return MaskProbs(importance_BT, logit_BT, prob_BT, weight_BT)

    def loss(self, noised: Noised, rated: MaskProbs, nats_BT: Tensor, loss_mask_BT: Tensor) -> Tensor:
        """The mask bit, told from the noisy tokens."""
        if rated.logit_BT is None:
            return nats_BT.new_zeros(())
        tokens = TokenBatch.of(noised.noisy_BT, noised.document_BT)
        logit_BT, _ = self.estimator(tokens, self.surprisal(noised.noisy_BT))
        off_BT = self.sharpened(logit_BT.double(), noised.share_B) - noised.masked_BT.double()
        mean = off_BT.square().where(noised.maskable_BT, 0.0).sum() / noised.maskable_BT.sum().clamp(min=1)
        loss: Tensor = (self.options.importance_weight * mean).to(nats_BT.dtype)
        return loss
