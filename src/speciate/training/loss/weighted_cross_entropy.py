"""A weighted sum of the cross-entropies of many tokens, and each of them; the logits never there as a whole.

The arithmetic is cross_entropy.py's. The nats themselves carry no gradient: what learns from them (an importance
estimator) tells the model nothing.

N predictions, D width, V vocabulary, C tokens at once.
"""

from typing import Any

import torch
from torch import Tensor

from speciate.training.loss.cross_entropy import exponentials


def weighted(x_ND: Tensor, head_VD: Tensor, target_N: Tensor, weight_N: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """(sum of weight times nats, a scalar with gradient; nats_N without), in float32 or better."""
    total: Tensor
    total, nats_N = WeightedCrossEntropy.apply(x_ND, head_VD, target_N, weight_N, chunk)  # type: ignore[no-untyped-call]
    return total, nats_N


class WeightedCrossEntropy(torch.autograd.Function):
    """Gradients of x and of the head are made in the forward pass, C tokens at a time."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, head_VD: Tensor, target_N: Tensor, weight_N: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        """The weighted sum and the nats."""
        nats_N = torch.zeros(len(x_ND), dtype=torch.promote_types(x_ND.dtype, torch.float32), device=x_ND.device)
        weight_N = weight_N.to(nats_N.dtype)
        x_gradient_ND, head_gradient_VD = torch.empty_like(x_ND), torch.zeros_like(head_VD)
        for start in range(0, len(x_ND), chunk):
            part = slice(start, start + chunk)
            x_CD, target_C, weight_C1 = x_ND[part], target_N[part], weight_N[part].unsqueeze(-1)
            nats_N[part], exp_CV, sum_C1 = exponentials((x_CD @ head_VD.T).to(nats_N.dtype), target_C)
            gradient_CV = exp_CV.mul_(weight_C1 / sum_C1)
            gradient_CV.scatter_add_(1, target_C.unsqueeze(-1), -weight_C1)
            x_gradient_ND[part] = gradient_CV.to(head_VD.dtype) @ head_VD
            head_gradient_VD += gradient_CV.to(x_CD.dtype).T @ x_CD
        ctx.save_for_backward(x_gradient_ND, head_gradient_VD)
        ctx.mark_non_differentiable(nats_N)
        return (nats_N * weight_N).sum(), nats_N

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """The kept gradients, scaled."""
        x_gradient_ND, head_gradient_VD = ctx.saved_tensors
        return gradient * x_gradient_ND, gradient * head_gradient_VD, None, None, None
