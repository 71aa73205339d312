"""Options that the learned importances share."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from speciate.config.contracts.training import ImportanceOptions


class NetworkImportanceOptions(ImportanceOptions):
    """Options of an importance that a small transformer estimates."""

    width: int = Field(32, ge=1)
    """Dimensions of the estimator's residual stream."""
    num_layers: int = Field(1, ge=1)
    """Number of the estimator's transformer blocks."""
    num_heads: int = Field(2, ge=1)
    """Number of the estimator's attention heads, each of an even number of dimensions."""

    published: ClassVar[bool] = True
    """Whether the original release has it."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % (2 * self.num_heads):
            raise ValueError(f"num_heads: {self.num_heads} heads of an even width do not fit a width of {self.width}")
        return self
