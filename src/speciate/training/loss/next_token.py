"""Next-token loss that every causal objective reports, whatever else it minimises: which tokens count, and their nats.

B blocks of T tokens, D width, N predictions.
"""

import torch
from torch import Tensor

from speciate.model.transformer import Transformer
from speciate.training.loss import cross_entropy


def head_inputs_and_targets(model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the output layer's input at every position but each block's last, (N, D), and the next tokens, (N,)."""
    x_BTD = model.hidden(token_BT, document_BT)
    return x_BTD[:, :-1].flatten(0, 1), token_BT[:, 1:].flatten()


def loss_mask(model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> Tensor:
    """Return which predictions count, (B, T - 1) boolean.

    All count, or those within a document where the model separates documents.
    """
    if model.separate_documents and document_BT is not None:
        return document_BT[:, 1:] == document_BT[:, :-1]
    return torch.ones_like(token_BT[:, 1:], dtype=torch.bool)


@torch.no_grad()
def token_nll(model: Transformer, token_BT: Tensor, document_BT: Tensor | None, chunk: int) -> Tensor:
    """Return the nats of tokens 1 to T - 1 of each block, (B, T - 1), counted or not; without gradient."""
    x_ND, target_N = head_inputs_and_targets(model, token_BT, document_BT)
    return cross_entropy.per_token_nll(x_ND, model.head_VD, target_N, chunk).view(len(token_BT), -1)
