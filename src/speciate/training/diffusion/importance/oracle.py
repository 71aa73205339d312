"""Importance by a causal model of the same study: how surprising it finds each token after those before it.

`start: {kind: oracle_model, origin: {kind: run, ablation: NAME}}` says which: a dense model of this one's shape, but for
`causal: true`. Its weights become a frozen part of this run's model, so a finished run needs no other's file.

B blocks of T tokens.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from speciate.config.contracts.training import ImportanceOptions
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer
from speciate.selection.selection import selectors
from speciate.training.loss.cross_entropy import each

CHUNK = 512


class Options(ImportanceOptions):
    """None."""

    has_selector: ClassVar[bool] = True
    """Whether there is an importance at all."""
    published: ClassVar[bool] = False
    """Whether the original has it."""
    needs_oracle: ClassVar[bool] = True
    """Whether it needs a causal model."""

    def check_run(self, run: Any) -> None:
        """Refuses a run without a causal model to ask."""
        if not run.start.loads_oracle:
            wanted = "start: {kind: oracle_model, origin: {kind: run, ablation: NAME}}"
            raise ValueError(f"objective.importance: an oracle asks a causal model: {wanted}")


class Importance(nn.Module):
    """Known alone."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        causal = place.model.model_copy(update={"causal": True})
        self.teacher = Transformer(causal, place.vocabulary - 1)
        if selectors(self.teacher):
            raise ValueError("objective.importance: an oracle's model has selectors of its own; it must be dense")
        self.teacher.requires_grad_(False)

    @torch.no_grad()
    def forward(self, tokens: TokenBatch, surprisal_BT: Tensor) -> tuple[None, Tensor]:
        """Its nats; the first token of a block, which it predicts from nothing, has those of its frequency."""
        x_BTD = self.teacher.read(tokens)
        nats_N = each(x_BTD[:, :-1].flatten(0, 1), self.teacher.head_VD, tokens.id_BT[:, 1:].flatten(), CHUNK)
        return None, torch.cat([surprisal_BT[:, :1], nats_N.view(len(x_BTD), -1).double()], 1)
