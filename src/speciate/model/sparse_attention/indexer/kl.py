"""An indexer that is trained to rank keys as attention weights them (after DeepSeek sparse attention's two stages).

    L = mean_t KL(p_t || softmax(I_t)),   p_ts = mean over heads of attention's weights, without gradient

For the first share `warmup` of the training, attention is dense, and p and the softmax are over all visible keys.
Afterwards both are over the chosen keys alone. The indexer reads x without gradient: it learns from L alone, and the
language model learns from its own loss alone. Evaluation is always sparse, even in the warm-up, so that it shows at
every step what the indexer would choose.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from speciate.model.sparse_attention.indexer_base import LearnedIndexer, masked_kl
from speciate.model.sparse_attention.indexer_options import IndexerHeadsOptions
from speciate.model.token_batch import BuildContext


class Options(IndexerHeadsOptions):
    """Heads, activation, warm-up and loss."""

    activation: Literal["sigmoid", "relu"] = "sigmoid"
    """Activation function of the dot product of query and key."""
    warmup: float = Field(0.2, ge=0, le=1)
    """Share of the training, from its start, in which attention is dense."""
    weight: float = Field(1.0, gt=0)
    """Weight of the indexer's loss."""


class Indexer(LearnedIndexer):
    """An indexer that learns from attention's weights."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__(options, context, activation=options.activation, detached=True)
        self.warmup, self.weight = options.warmup, options.weight
        self.dense = options.warmup > 0

    def before_update(self, progress: float) -> None:
        """End the warm-up when its share of the training is over."""
        self.dense = progress < self.warmup

    def divergence(self, score_BTk: Tensor, mass_BTk: Tensor, valid_BTk: Tensor) -> Tensor | None:
        """Return the weighted KL divergence of each query."""
        return self.weight * masked_kl(mass_BTk, score_BTk, valid_BTk)
