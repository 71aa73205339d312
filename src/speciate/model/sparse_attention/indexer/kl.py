"""The indexer trained to rank keys as attention weighs them (after DeepSeek sparse attention's two stages).

    L = mean_t KL(p_t || softmax(I_t)),   p_ts = mean over heads of attention's weights, without gradient

For the first `warmup` of the training attention is dense, and p and the softmax are over all visible keys; then both
are over the chosen keys alone. The indexer reads x without gradient: it learns from L and from nothing else, and the
language model from its own loss and from nothing else. An evaluation is always sparse, in the warm-up too, so that it
shows at every step what the indexer would choose.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import IndexerOptions
from speciate.model.sparse_attention.indexer_base import Learned, kl
from speciate.model.token_batch import BuildContext


class Options(IndexerOptions):
    """Shape and stages."""

    heads: int = Field(4, ge=1)
    """Heads of the indexer."""
    width: int = Field(64, ge=1)
    """Dimensions of a head."""
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    """Of the match of query and key."""
    warmup: float = Field(0.2, ge=0, le=1)
    """Share of the training with dense attention."""
    weight: float = Field(1.0, gt=0)
    """Weight of the indexer's loss."""


class Indexer(Learned):
    """Learns from attention's weights."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__(options, place, detached=True)
        self.warmup, self.weight = options.warmup, options.weight
        self.dense = options.warmup > 0

    def before_update(self, progress: float) -> None:
        """Ends the warm-up."""
        self.dense = progress < self.warmup

    def divergence(self, score_BTk: Tensor, mass_BTk: Tensor, valid_BTk: Tensor) -> Tensor | None:
        """The weighted KL of each query."""
        return self.weight * kl(mass_BTk, score_BTk, valid_BTk)
