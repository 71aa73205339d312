"""The soft-gated indexer: log I is added to attention's logits, so that the language model's own gradient trains it.

    a_ts = softmax over the chosen s of (q_t . k_s / sqrt(h) + log I_ts) = exp(q_t . k_s / sqrt(h)) I_ts / sum

A key that helps is weighed more; one that is not chosen gets no gradient, which is what the top-k leaves to chance. x
is not detached. relu would have log 0, hence sigmoid alone.
"""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from speciate.config.contracts.model import IndexerOptions
from speciate.model.sparse_attention.indexer_base import Learned
from speciate.model.token_batch import BuildContext


class Options(IndexerOptions):
    """Shape."""

    heads: int = Field(4, ge=1)
    """Heads of the indexer."""
    width: int = Field(64, ge=1)
    """Dimensions of a head."""

    activation: ClassVar[str] = "sigmoid"
    """Of the match of query and key."""


class Indexer(Learned):
    """Weighs the chosen keys too."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__(options, place, detached=False)

    def bias(self, score_BTk: Tensor) -> Tensor | None:
        """log I; a product of sigmoids that underflows is a weight of nearly nothing."""
        return score_BTk.clamp_min(1e-20).log()
