"""Multi-token prediction (Gloeckle et al. 2024, 2404.19737): n heads on one trunk predict the next n tokens.

    L = sum_i w_i L_i,   L_i = 1/N_0 sum over counted t of -log p_i(token t+1+i | tokens up to t),   i = 0 ... n - 1

Head 0 is the model's own last block, norm and head, so the next-token model is the plain decoder, and is exported,
evaluated and generated from as such; with one head the objective is `causal`, bit for bit. The others are parts of the
model (model/mtp_heads.py): a block and a norm each on the residual stream before the last block, with the model's output
layer. As moe_arch has it, they are linear maps of what the output layer reads, and w is (1, .5, .3, .2) normalised.

Decisions. The value of the loss is L_0, whatever is minimised: that is what is counted, evaluated, reported and watched
for divergence, so that arms compare; its gradient is that of L. All heads' sums are divided by N_0, head 0's number of
predictions: L is then the paper's sum over positions and heads, and micro-batches, which are weighted by N_0, add up to
it exactly. A head's block has the last layer's mixer, every token runs through it (each must be predicted from), and
its feed-forward layer is dense unless asked otherwise: selectors in heads would be more rows of every table, in this
arm alone. Where the model separates documents, a target in another one does not count; where it does not, a block is
one context, whose borders head 0 crosses too.

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
from speciate.training.loss.objective import Objective as BaseObjective

PUBLISHED = (1.0, 0.5, 0.3, 0.2)
"""moe_arch's weights, of the losses of its 4 heads, before they are normalised."""


class Options(ObjectiveOptions):
    """Heads, and how their losses add up."""

    heads: int = Field(4, ge=1)
    """Tokens that are predicted at once; fewer than a block has. 1: next-token prediction."""
    form: Literal["block", "linear"] = "block"
    """What each head but the first is: a block on the trunk, or a linear map beside the output layer."""
    weights: Literal["equal", "published"] = "equal"
    """equal: the plain sum; published: moe_arch's 1, .5, .3, .2, as many as there are heads, divided by their sum."""
    ffn: Annotated[FfnOptions, OneOf("model/ffn")] | None = None
    """The feed-forward layer of a head's block; null: the last layer's, which must be dense then."""
    chunk: int = Field(512, ge=1)
    """Tokens whose logits are held at once."""

    def check_run(self, run: Any) -> None:
        """Refuses heads that no block has targets for, and heads that cannot be what the model's layers are."""
        self.check_length(run.model.context, "model.context")
        if self.weights == "published" and self.heads > 4:
            raise ValueError(f"weights: 4 were published, 1, .5, .3 and .2, not {self.heads}")
        if self.form == "linear" and self.ffn is not None:
            raise ValueError("ffn: a linear head has no feed-forward layer; leave it out, or set form: block")
        if self.ffn is not None:
            self.ffn.check(run.model)
        last = run.model.block_of(run.model.num_layers - 1).ffn.kind
        if self.form == "block" and self.heads > 1 and self.ffn is None and last != "dense":
            raise ValueError(
                f"ffn: the last layer's is {last}; say what a head's is, such as {{kind: dense, hidden: 256}}"
            )

    def check_length(self, length: int, of: str = "block_length") -> None:
        """Refuses as many heads as a block has tokens."""
        if self.heads >= length:
            raise ValueError(f"heads: the last of {self.heads} heads has no token to predict in {length} ({of})")


def parts(options: Options, run: RunSpec) -> dict[str, Callable[[BuildContext], nn.Module]]:
    """The heads but the first, `head1` and so on."""
    names = {f"head{ahead}": ahead for ahead in range(1, options.heads)}
    if options.form == "linear":
        return {name: partial(LinearHead, ahead=ahead) for name, ahead in names.items()}
    last = run.model.block_of(run.model.num_layers - 1)
    every = BlockSpec.model_validate({"mixer": last.mixer, "ffn": options.ffn or last.ffn, "depth": "every"})
    return {name: partial(BlockHead, ahead=ahead, block=every) for name, ahead in names.items()}


class Objective(BaseObjective):
    """The sum of all heads' losses, under the value of the first one's."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.chunk = options.chunk
        given = PUBLISHED[: options.heads] if options.weights == "published" else (1.0,) * options.heads
        whole = sum(given) if options.weights == "published" else 1.0
        self.weights = tuple(weight / whole for weight in given)

    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Head 0's mean nats, a scalar, with the gradient of the weighted sum of all heads'; 0 where none counts."""
        loss_H = self.losses(model, token_BT, document_BT)
        total = torch.stack([weight * loss for weight, loss in zip(self.weights, loss_H, strict=True)]).sum()
        return loss_H[0].detach() + (total - total.detach())

    def losses(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> list[Tensor]:
        """Each head's nats, divided by head 0's number of predictions; scalars."""
        heads = self._heads(model, token_BT, document_BT)
        sums = [(cross_entropy.summed(*head, self.chunk), len(head[-1])) for head in heads]
        count = max(1, sums[0][1])
        return [total / count for total, _ in sums]

    def loss_mask(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Which of head 0's predictions count, (B, T - 1) boolean, as in `causal`; micro-batches are weighted by it."""
        return next_token.loss_mask(model, token_BT, document_BT)

    def token_nll(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None = None) -> Tensor:
        """Head 0's nats of tokens 1 to T - 1 of each block, (B, T - 1), counted or not; the other heads do not run."""
        return next_token.token_nll(model, token_BT, document_BT, self.chunk)

    @torch.no_grad()
    def run_probe(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> None:
        """Runs all heads, and notes the mean nats of each as `head_nats`, at its number."""
        for ahead, head in enumerate(self._heads(model, token_BT, document_BT)):
            if is_collecting():
                record_metric(self, "head_nats", cross_entropy.each(*head, self.chunk), at=float(ahead))

    def _heads(
        self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each head what its output layer reads where it counts, (N, D), that layer, (V, D), and the targets, (N).

        Raises:
            ValueError: the blocks are too short for the last head.
        """
        further: list[PredictionHead] = prediction_heads(model)
        if token_BT.shape[1] <= len(further) + 1:
            raise ValueError(f"a block of {token_BT.shape[1]} tokens has none for head {len(further)} to predict")
        tokens = model.tokens(token_BT, document_BT)
        trunk_BTD, x_BTD = model.trunk_and_hidden(tokens)
        reads = [(0, x_BTD, model.head_VD)]
        reads += [(head.ahead, head.read(trunk_BTD, x_BTD, tokens), head.weight(model)) for head in further]
        for ahead, read_BTD, head_VD in reads:
            read_ND, target_N = read_BTD[:, : -1 - ahead].flatten(0, 1), token_BT[:, 1 + ahead :].flatten()
            if tokens.document_BT is not None:
                within_N = (tokens.document_BT[:, 1 + ahead :] == tokens.document_BT[:, : -1 - ahead]).flatten()
                read_ND, target_N = read_ND[within_N], target_N[within_N]
            yield read_ND, head_VD, target_N
