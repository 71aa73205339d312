"""The indexer as released with Gated Sparse Attention (arXiv 2601.15305, code at b23ccad): a frozen random projection.

The top-k has no gradient and no loss uses the scores, so no gradient ever reaches the indexer: its weights stay as they
were drawn. Here they are buffers, so that no optimizer changes them either.
"""

from typing import Literal

from speciate.model.sparse_attention.indexer_base import LearnedIndexer
from speciate.model.sparse_attention.indexer_options import IndexerHeadsOptions
from speciate.model.token_batch import BuildContext


class Options(IndexerHeadsOptions):
    """Heads and activation."""

    activation: Literal["sigmoid", "relu"] = "sigmoid"
    """Activation function of the dot product of query and key."""


class Indexer(LearnedIndexer):
    """An indexer whose weights are never trained."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__(options, context, activation=options.activation, detached=True, frozen=True)
