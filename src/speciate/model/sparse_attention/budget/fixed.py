"""A fixed budget: every query takes the same number of keys, or all that it sees if they are fewer."""

from typing import Any

from pydantic import Field

from speciate.config.contracts.model import BudgetOptions
from speciate.model.sparse_attention import indexer_base


class Options(BudgetOptions):
    """Number of keys."""

    k: int = Field(32, ge=1)
    """Number of keys of a query; at most the context."""

    def check(self, model: Any) -> None:
        """Refuse more keys than the context has."""
        if self.k > model.context:
            raise ValueError(f"k: {self.k} keys of a context of {model.context}")


class Budget(indexer_base.Budget):
    """Takes k keys for every query."""

    def __init__(self, options: Options) -> None:
        super().__init__(options.k)
