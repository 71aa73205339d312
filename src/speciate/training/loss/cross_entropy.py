"""Cross-entropy of many tokens over a large vocabulary, computed in chunks without ever holding all logits.

    nll_n = logsumexp_v(l_nv) - l_{n, target},   l = x H^T
    d sum_n w_n nll_n / d l_n = w_n (softmax(l_n) - onehot(target_n))

The logits of all tokens together would be by far the largest tensor of a step. The forward pass makes the logits of
one chunk, turns them into their own gradient and drops them. It keeps only the gradients of x and of H for the
backward pass.

With and without weights the bits differ in two places, which results depend on: the plain sum divides each row by its
total (weights multiply by w_n / total), and adds one chunk after the other (weights sum all products at once).

N predictions, D width, V vocabulary, C tokens of a chunk.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def summed_nll(x_ND: Tensor, head_VD: Tensor, target_N: Tensor, chunk: int) -> Tensor:
    """Return the sum of the negative log-likelihoods in nats: a scalar with gradient, in float32 or better."""
    total: Tensor = ChunkedCrossEntropy.apply(x_ND, head_VD, target_N, None, chunk)[0]  # type: ignore[no-untyped-call]
    return total


def weighted_nll(
    x_ND: Tensor, head_VD: Tensor, target_N: Tensor, weight_N: Tensor, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Return the sum of weight times nats, a scalar with gradient, and the nats (N,), both in float32 or better.

    The nats carry no gradient: what learns from them, such as an importance estimator, must not train the model.
    """
    total: Tensor
    total, nll_N = ChunkedCrossEntropy.apply(x_ND, head_VD, target_N, weight_N, chunk)  # type: ignore[no-untyped-call]
    return total, nll_N


@torch.no_grad()
def per_token_nll(x_ND: Tensor, head_VD: Tensor, target_N: Tensor, chunk: int) -> Tensor:
    """Return the nats of each prediction, (N,), in float32 or better and without gradient."""
    precise = torch.promote_types(x_ND.dtype, torch.float32)
    chunks = zip(x_ND.split(chunk), target_N.split(chunk), strict=True)
    nll_chunks = [nll_and_exponentials((F.linear(x_CD, head_VD)).to(precise), target_C)[0] for x_CD, target_C in chunks]
    return torch.cat(nll_chunks)


def nll_and_exponentials(logit_CV: Tensor, target_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (nll_C, exp(logits - max), its row sums); overwrites `logit_CV`."""
    target_C1 = target_C.unsqueeze(-1)
    max_C1 = logit_CV.amax(-1, keepdim=True)
    logit_CV.sub_(max_C1)
    chosen_C1 = logit_CV.gather(1, target_C1)
    sum_C1 = logit_CV.exp_().sum(-1, keepdim=True)
    return (sum_C1.log() - chosen_C1).squeeze(-1), logit_CV, sum_C1


class ChunkedCrossEntropy(torch.autograd.Function):
    """Compute the sum of nats, weighted or plain, and its gradients in one forward pass, a chunk at a time."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, head_VD: Tensor, target_N: Tensor, weight_N: Tensor | None, chunk: int
    ) -> tuple[Tensor, Tensor]:
        """Return the sum, a scalar, and the nats, (N,); in float32 or better. `weight_N` None: each counts as one."""
        nll_N = torch.zeros(len(x_ND), dtype=torch.promote_types(x_ND.dtype, torch.float32), device=x_ND.device)
        total = nll_N.new_zeros(())
        weight_N = None if weight_N is None else weight_N.to(nll_N.dtype)
        x_gradient_ND, head_gradient_VD = torch.empty_like(x_ND), torch.zeros_like(head_VD)
        for start in range(0, len(x_ND), chunk):
            part = slice(start, start + chunk)
            x_CD, target_C1 = x_ND[part], target_N[part].unsqueeze(-1)
            nll_C, exp_CV, sum_C1 = nll_and_exponentials((x_CD @ head_VD.T).to(nll_N.dtype), target_N[part])
            nll_N[part] = nll_C
            if weight_N is None:
                total += nll_C.sum()
                gradient_CV = exp_CV.div_(sum_C1).scatter_add_(1, target_C1, torch.full_like(sum_C1, -1.0))
            else:
                weight_C1 = weight_N[part].unsqueeze(-1)
                gradient_CV = exp_CV.mul_(weight_C1 / sum_C1).scatter_add_(1, target_C1, -weight_C1)
            x_gradient_ND[part] = gradient_CV.to(head_VD.dtype) @ head_VD
            head_gradient_VD += gradient_CV.to(x_CD.dtype).T @ x_CD
        ctx.save_for_backward(x_gradient_ND, head_gradient_VD)
        ctx.mark_non_differentiable(nll_N)
        return total if weight_N is None else (nll_N * weight_N).sum(), nll_N

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the kept gradients, scaled."""
        x_gradient_ND, head_gradient_VD = ctx.saved_tensors
        return gradient * x_gradient_ND, gradient * head_gradient_VD, None, None, None
