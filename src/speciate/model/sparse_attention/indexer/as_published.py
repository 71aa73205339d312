"""The indexer as released with Gated Sparse Attention (arXiv 2601.15305, code at b23ccad): a frozen random projection.

The top-k has no gradient and nothing else is learned from, so no gradient ever reaches the indexer: its weights stay
what they were drawn. Kept as buffers here, so that no optimizer touches them either.
"""

from typing import Literal

from pydantic import Field

from speciate.config.contracts.model import IndexerOptions
from speciate.model.sparse_attention.indexer_base import Learned
from speciate.model.token_batch import BuildContext


class Options(IndexerOptions):
    """Shape."""

    heads: int = Field(4, ge=1)
    """Heads of the indexer."""
    width: int = Field(64, ge=1)
    """Dimensions of a head."""
    activation: Literal["sigmoid", "relu"] = "sigmoid"
    """Of the match of query and key."""


class Indexer(Learned):
    """Never learns."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__(options, place, detached=True, frozen=True)
