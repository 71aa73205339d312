"""Multi-token prediction (Gloeckle et al. 2024, 2404.19737): n heads on one trunk predict the next n tokens.

    L = sum_i w_i L_i,   L_i = 1/N_0 sum over counted t of -log p_i(token t+1+i | tokens up to t),   i = 0 ... n - 1

Head 0 is the model's own last block, norm and output layer. So the next-token model is the plain decoder, and it is
exported, evaluated and sampled as one; with one head the objective equals `causal`, bit for bit. The other heads are
parts of the model (model/mtp_heads.py): each is a block and a norm on the residual stream before the last block, with
the model's output layer. In moe_arch's form they are linear maps of the output layer's input, and w is (1, .5, .3, .2)
normalised.

Decisions:
- The value of the loss is L_0, whatever is minimised, so that arms are comparable: it is evaluated, reported and
  monitored for divergence. Its gradient is that of L.
- All heads' sums are divided by N_0, head 0's number of predictions. L is then the paper's sum over positions and
  heads, and micro-batches, which are weighted by N_0, add up to it exactly.
- A head's block has the last layer's mixer. Every token runs through it, since a prediction starts from each. Its
  feed-forward layer is dense unless the config says otherwise: selectors in heads would add rows to every table, in
  this arm alone.
- Where the model separates documents, a target in another document does not count. Where it does not, a block is one
  context, and head 0 predicts across documents too.

B blocks of T tokens, D width, N predictions.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from speciate.config.components import OneOf
from speciate.config.contracts.model import FfnOptions
from speciate.config.contracts.training import ObjectiveOptions
from speciate.config.run import BlockSpec, RunSpec
from speciate.model.mtp_heads import BlockHead, LinearHead, PredictionHead, prediction_heads
from speciate.model.token_batch import BuildContext
from speciate.model.transformer import Transformer
from speciate.selection.metrics import is_collecting, record_metric
from speciate.training.loss import cross_entropy, next_token
from speciate.training.objective_base import Objective as BaseObjective

PUBLISHED_WEIGHTS = (1.0, 0.5, 0.3, 0.2)
"""Weights of the losses of moe_arch's 4 heads, before normalisation."""


class Options(ObjectiveOptions):
    """Options of multi-token prediction: the heads and the weights of their losses."""

    heads: int = Field(4, ge=1)
    """Number of tokens that are predicted at once; fewer than a block has. 1: next-token prediction."""
    form: Literal["block", "linear"] = "block"
    """Form of each head but the first. block: a block on the trunk; linear: a separate output layer on the trunk."""
    weights: Literal["equal", "published"] = "equal"
    """Weights of the heads' losses. equal: the plain sum; published: moe_arch's 1, .5, .3, .2, one per head, divided by
    their sum."""
    ffn: Annotated[FfnOptions, OneOf("model/ffn")] | None = None
    """Feed-forward layer of a head's block; null: the last layer's, which must then be dense."""
    chunk: int = Field(512, ge=1)
    """Tokens whose logits are held in memory at once."""

    def check_run(self, run: Any) -> None:
        """Refuse more heads than a block has targets for, and heads that the model's layers do not allow."""
        self.check_length(run.model.context, "model.context")
        if self.weights == "published" and self.heads > 4:
            raise ValueError(f"weights: 4 weights are published (1, .5, .3, .2), and there are {self.heads} heads")
        if self.form == "linear" and self.ffn is not None:
            raise ValueError("ffn: a linear head has no feed-forward layer; leave it out, or set form: block")
        if self.ffn is not None:
            self.ffn.check(run.model)
        last = run.model.block_of(run.model.num_layers - 1).ffn.kind
        if self.form == "block" and self.heads > 1 and self.ffn is None and last != "dense":
            example = "{kind: dense, hidden: 256}"
            raise ValueError(f"ffn: the last layer's kind is {last}; set the heads' own, for example {example}")

    def check_length(self, block_length: int, key: str = "block_length") -> None:
        """Refuse as many heads as a block has tokens; `key` is the config's name of that length."""
        if self.heads >= block_length:
            raise ValueError(f"heads: the last of {self.heads} heads has no token to predict in {block_length} ({key})")


def parts(options: Options, run: RunSpec) -> dict[str, Callable[[BuildContext], nn.Module]]:
    """Return builders of the heads but the first, named `head1` and so on."""
    names = {f"head{ahead}": ahead for ahead in range(1, options.heads)}
    if options.form == "linear":
        return {name: partial(LinearHead, ahead=ahead) for name, ahead in names.items()}
    last = run.model.block_of(run.model.num_layers - 1)
    block = BlockSpec.model_validate({"mixer": last.mixer, "ffn": options.ffn or last.ffn, "depth": "every"})
    return {name: partial(BlockHead, ahead=ahead, block=block) for name, ahead in names.items()}


class Objective(BaseObjective):
    """The first head's loss, with the gradient of the weighted sum of all heads' losses."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.chunk = options.chunk
        weights = PUBLISHED_WEIGHTS[: options.heads] if options.weights == "published" else (1.0,) * options.heads
        divisor = sum(weights) if options.weights == "published" else 1.0
        self.weights = tuple(weight / divisor for weight in weights)

    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return head 0's mean nats, a scalar with the gradient of all heads' weighted sum; 0 where none counts."""
        loss_H = self.head_losses(model, token_BT, document_BT)
        total = torch.stack([weight * loss for weight, loss in zip(self.weights, loss_H, strict=True)]).sum()
        return loss_H[0].detach() + (total - total.detach())

    def head_losses(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> list[Tensor]:
        """Return each head's nats, divided by head 0's number of predictions; scalars."""
        heads = self._head_inputs(model, token_BT, document_BT)
        sums = [(cross_entropy.summed_nll(*head, self.chunk), len(head[-1])) for head in heads]
        count = max(1, sums[0][1])
        return [total / count for total, _ in sums]

    def loss_mask(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return which of head 0's predictions count, (B, T - 1) boolean, as in `causal`."""
        return next_token.loss_mask(model, token_BT, document_BT)

    def token_nll(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Return head 0's nats of tokens 1 to T - 1 of each block, (B, T - 1); the other heads do not run."""
        return next_token.token_nll(model, token_BT, document_BT, self.chunk)

    @torch.no_grad()
    def run_probe(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> None:
        """Run all heads, and record the mean nats of each as `head_nats`, at its number."""
        for ahead, head in enumerate(self._head_inputs(model, token_BT, document_BT)):
            if is_collecting():
                record_metric(self, "head_nats", cross_entropy.per_token_nll(*head, self.chunk), at=float(ahead))

    def _head_inputs(
        self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield each head's counted inputs of its output layer, (N, D), that layer's weight, (V, D), and targets, (N,).

        Raises:
            ValueError: the blocks are too short for the last head.
        """
        extra_heads: list[PredictionHead] = prediction_heads(model)
        if token_BT.shape[1] <= len(extra_heads) + 1:
            raise ValueError(f"a block of {token_BT.shape[1]} tokens has none for head {len(extra_heads)} to predict")
        tokens = model.tokens(token_BT, document_BT)
        trunk_BTD, x_BTD = model.trunk_and_hidden(tokens)
        inputs = [(0, x_BTD, model.head_VD)]
        inputs += [(head.ahead, head.read(trunk_BTD, x_BTD, tokens), head.weight(model)) for head in extra_heads]
        for ahead, input_BTD, head_VD in inputs:
            input_ND, target_N = input_BTD[:, : -1 - ahead].flatten(0, 1), token_BT[:, 1 + ahead :].flatten()
            if tokens.document_BT is not None:
                within_N = (tokens.document_BT[:, 1 + ahead :] == tokens.document_BT[:, : -1 - ahead]).flatten()
                input_ND, target_N = input_ND[within_N], target_N[within_N]
            yield input_ND, head_VD, target_N
