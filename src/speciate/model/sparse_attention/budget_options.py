"""Options that every adaptive budget of a sparse attention has: how many keys a query may keep."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from speciate.config.contracts.model import BudgetOptions


class AdaptiveBudgetOptions(BudgetOptions):
    """Numbers of keys of a budget that follows the spread of the indexer's scores."""

    k: int = Field(32, ge=1)
    """Number of keys of a query whose scores have average variance."""
    k_min: int = Field(8, ge=1)
    """Smallest number of keys of a query."""
    k_max: int = Field(64, ge=1)
    """Largest number of keys of a query; at most the context."""
    temperature: float = Field(1.0, gt=0)
    """How strongly the variance of its scores changes a query's number of keys."""

    adaptive: ClassVar[bool] = True

    @model_validator(mode="after")
    def _order(self) -> Self:
        if not self.k_min <= self.k <= self.k_max:
            raise ValueError(f"k_min: needs k_min <= k <= k_max, not {self.k_min}, {self.k}, {self.k_max}")
        return self

    def check(self, model: Any) -> None:
        """Refuse more keys than the context has."""
        if self.k_max > model.context:
            raise ValueError(f"k_max: {self.k_max} keys of a context of {model.context}")
