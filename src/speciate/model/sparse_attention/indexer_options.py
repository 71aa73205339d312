"""Options that every indexer with weights has: its heads."""

from pydantic import Field

from speciate.config.contracts.model import IndexerOptions


class IndexerHeadsOptions(IndexerOptions):
    """Number and width of an indexer's heads."""

    heads: int = Field(4, ge=1)
    """Number of heads of the indexer."""
    width: int = Field(64, ge=1)
    """Dimensions of an indexer head."""
