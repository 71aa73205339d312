"""Importance by a causal model of the same study: each token's surprisal given the tokens before it.

`start: {kind: oracle_model, origin: {kind: run, ablation: NAME}}` says which model: a dense one of this run's shape,
but with `causal: true`. Its weights become a frozen part of this run's model, so a finished run needs no other's file.

B blocks of T tokens.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from speciate.config.contracts.training import ImportanceOptions
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer
from speciate.selection.selection import selectors
from speciate.training.loss.cross_entropy import per_token_nll

CHUNK = 512
"""Tokens whose logits are held at once."""


class Options(ImportanceOptions):
    """Options of the oracle: none."""

    needs_oracle: ClassVar[bool] = True
    """Whether it asks a causal model of the same study."""

    def check_run(self, run: Any) -> None:
        """Refuse a run without a causal model to ask."""
        if not run.start.loads_oracle:
            wanted = "start: {kind: oracle_model, origin: {kind: run, ablation: NAME}}"
            raise ValueError(f"objective.importance: an oracle needs a causal model; set {wanted}")


class Importance(nn.Module):
    """A frozen causal model."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        causal = context.model.model_copy(update={"causal": True})
        self.teacher = Transformer(causal, context.vocabulary - 1)  # named in the files of finished runs
        if selectors(self.teacher):
            raise ValueError("objective.importance: an oracle's model must be dense, and this one has selectors")
        self.teacher.requires_grad_(False)

    @torch.no_grad()
    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[None, Tensor]:
        """Return no logits, and the causal model's nats, (B, T).

        A block's first token, which the model does not predict, gets the surprisal of its frequency.
        """
        x_BTD = self.teacher.read(tokens)
        nats_N = per_token_nll(x_BTD[:, :-1].flatten(0, 1), self.teacher.head_VD, tokens.id_BT[:, 1:].flatten(), CHUNK)
        return None, torch.cat([surprisal_BT[:, :1], nats_N.view(len(x_BTD), -1).double()], 1)
