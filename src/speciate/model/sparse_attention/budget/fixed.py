"""Every query takes the same number of keys, or all that it sees where these are fewer."""

from typing import Any, ClassVar

from pydantic import Field

from speciate.config.contracts.model import BudgetOptions
from speciate.model.sparse_attention import indexer_base


class Options(BudgetOptions):
    """Number."""

    k: int = Field(32, ge=1)
    """Keys of a query; at most the context."""

    adaptive: ClassVar[bool] = False
    """Whether it depends on an indexer's scores."""

    def check(self, model: Any) -> None:
        """Refuses more keys than there can be."""
        if self.k > model.context:
            raise ValueError(f"k: {self.k} keys of a context of {model.context}")


class Budget(indexer_base.Budget):
    """k."""

    def __init__(self, options: Options) -> None:
        super().__init__(options.k)
