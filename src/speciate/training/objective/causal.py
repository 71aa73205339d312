"""Next-token prediction: the mean of -log p(token t+1 | tokens up to t) over the T - 1 predictions of each block.

Decision: where the model separates documents, a document's first token follows the end of another document, which says
nothing about it. That prediction does not count, in training and in evaluation alike.

B blocks of T tokens, N = B (T - 1) predictions or fewer, D width.
"""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.training import ObjectiveOptions
from speciate.model.transformer import Transformer
from speciate.training.loss import cross_entropy, next_token
from speciate.training.objective_base import Objective as BaseObjective


class Options(ObjectiveOptions):
    """Options of next-token prediction."""

    chunk: int = Field(512, ge=1)
    """Tokens whose logits are held in memory at once."""


def parts(options: Options, run: Any) -> dict[str, nn.Module]:
    """Return nothing: the loss needs the decoder alone."""
    return {}


class Objective(BaseObjective):
    """The causal language-modelling loss."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.chunk = options.chunk

    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return the mean nats of the predictions that count, a scalar with gradient; 0 where none does."""
        x_ND, target_N = next_token.head_inputs_and_targets(model, token_BT, document_BT)
        if model.separate_documents:
            loss_mask_N = self.loss_mask(model, token_BT, document_BT).flatten()
            x_ND, target_N = x_ND[loss_mask_N], target_N[loss_mask_N]
        return cross_entropy.summed_nll(x_ND, model.head_VD, target_N, self.chunk) / max(1, len(target_N))

    def loss_mask(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return which predictions count, (B, T - 1) boolean: all, or those within a document."""
        return next_token.loss_mask(model, token_BT, document_BT)

    def token_nll(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return the nats of tokens 1 to T - 1 of each block, (B, T - 1), counted or not; without gradient."""
        return next_token.token_nll(model, token_BT, document_BT, self.chunk)
