"""Next-token prediction: the mean of -log p(token t+1 | tokens up to t) over the T - 1 predictions of each block.

Decision: where the model separates documents, what precedes a document's first token in the block is another document's
end, which tells nothing of it: that prediction has no part in the loss, in training and in evaluation alike.

    nats_n = logsumexp_v(l_nv) - l_{n, target},   l = x H^T;    d nats_n / d l_n = softmax(l_n) - onehot(target_n)

The logits of all tokens together would be by far the largest tensor of a step. They are made, turned into their own
gradient and dropped, some tokens at a time; what is kept for the backward pass is the gradient of x and of H.

B blocks of T tokens, S = T - 1 predictions each, N = B S or fewer, D width, V vocabulary, C tokens at once.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from speciate.kinds import Kind
from speciate.model.transformer import Transformer


class Options(Kind):
    """Memory."""

    chunk: int = Field(512, ge=1)
    """Tokens whose logits are held at once."""


class Objective(nn.Module):
    """The causal language-modelling loss."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.chunk = options.chunk

    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Mean nats of the predictions that count, a scalar with gradient; 0 where none does."""
        x_ND, target_N = predictions(model, token_BT, document_BT)
        if model.separate_documents:
            counted_N = self.counted(model, token_BT, document_BT).flatten()
            x_ND, target_N = x_ND[counted_N], target_N[counted_N]
        total: Tensor = ChunkedCrossEntropy.apply(x_ND, model.head_VD, target_N, self.chunk)  # type: ignore[no-untyped-call]
        return total / max(1, len(target_N))

    def counted(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Which predictions count, (B, T - 1) boolean: all, or those within a document where these are separated."""
        if model.separate_documents and document_BT is not None:
            return document_BT[:, 1:] == document_BT[:, :-1]
        return torch.ones_like(token_BT[:, 1:], dtype=torch.bool)

    @torch.no_grad()
    def nats(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Nats of each prediction, (B, T - 1), of tokens 1 to T - 1 of each block, counted or not; without gradient."""
        x_ND, target_N = predictions(model, token_BT, document_BT)
        chunks = zip(x_ND.split(self.chunk), target_N.split(self.chunk), strict=True)
        nats_N = torch.cat([exponentials(model.head(x_CD).float(), target_C)[0] for x_CD, target_C in chunks])
        return nats_N.view(len(token_BT), -1)


def predictions(model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """What the head reads at every position but each block's last, (N, D), and the tokens that follow, (N)."""
    x_BTD = model.hidden(token_BT, document_BT)
    return x_BTD[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten()


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
