"""Cross-entropy of many tokens over a large vocabulary, the logits never there as a whole.

    nats_n = logsumexp_v(l_nv) - l_{n, target},   l = x H^T;    d nats_n / d l_n = softmax(l_n) - onehot(target_n)

The logits of all tokens together would be by far the largest tensor of a step. They are made, turned into their own
gradient and dropped, some tokens at a time; what is kept for the backward pass is the gradient of x and of H.

N predictions, D width, V vocabulary, C tokens at once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def summed(x_ND: Tensor, head_VD: Tensor, target_N: Tensor, chunk: int) -> Tensor:
    """The sum of the nats of N predictions, a scalar with gradient, in float32 or better."""
    total: Tensor = ChunkedCrossEntropy.apply(x_ND, head_VD, target_N, chunk)  # type: ignore[no-untyped-call]
    return total


@torch.no_grad()
def each(x_ND: Tensor, head_VD: Tensor, target_N: Tensor, chunk: int) -> Tensor:
    """The nats of each of N predictions, (N,), in float32 or better; without gradient."""
    precise = torch.promote_types(x_ND.dtype, torch.float32)
    chunks = zip(x_ND.split(chunk), target_N.split(chunk), strict=True)
    return torch.cat([exponentials(F.linear(x_CD, head_VD).to(precise), target_C)[0] for x_CD, target_C in chunks])


def exponentials(logit_CV: Tensor, target_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(nats_C, exp(logits - max), its row sums); `logit_CV` is overwritten."""
    target_C1 = target_C.unsqueeze(-1)
    max_C1 = logit_CV.amax(-1, keepdim=True)
    logit_CV.sub_(max_C1)
    chosen_C1 = logit_CV.gather(1, target_C1)
    sum_C1 = logit_CV.exp_().sum(-1, keepdim=True)
    return (sum_C1.log() - chosen_C1).squeeze(-1), logit_CV, sum_C1


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of nats over N predictions, with gradients made in the forward pass, C tokens at a time."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, head_VD: Tensor, target_N: Tensor, chunk: int) -> Tensor:
        """The sum, a scalar, in float32 or better."""
        total = torch.zeros((), dtype=torch.promote_types(x_ND.dtype, torch.float32), device=x_ND.device)
        x_gradient_ND, head_gradient_VD = torch.empty_like(x_ND), torch.zeros_like(head_VD)
        for start in range(0, len(x_ND), chunk):
            part = slice(start, start + chunk)
            x_CD, target_C = x_ND[part], target_N[part]
            logit_CV = (x_CD @ head_VD.T).to(total.dtype)
            nats_C, exp_CV, sum_C1 = exponentials(logit_CV, target_C)
            total += nats_C.sum()
            gradient_CV = exp_CV.div_(sum_C1)
            gradient_CV.scatter_add_(1, target_C.unsqueeze(-1), gradient_CV.new_full((len(target_C), 1), -1.0))
            x_gradient_ND[part] = gradient_CV @ head_VD
            head_gradient_VD += gradient_CV.T @ x_CD
        ctx.save_for_backward(x_gradient_ND, head_gradient_VD)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The kept gradients, scaled."""
        x_gradient_ND, head_gradient_VD = ctx.saved_tensors
        return gradient * x_gradient_ND, gradient * head_gradient_VD, None, None
