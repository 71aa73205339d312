"""Options of the origins whose files the workflow fetches."""

from typing import Any, Self

import pydantic
from pydantic import model_validator

from speciate.config.components import ConfigErrors, config_errors
from speciate.config.contracts.training import OriginOptions
from speciate.config.pretrained.families import Shape
from speciate.config.pretrained.read import commit_name, hub_shape
from speciate.config.run import ModelSpec


class FetchedOriginOptions(OriginOptions):
    """Options of a checkpoint that the workflow fetches, so that planning may have to know its shape before."""

    shape: dict[str, Any] | None = None
    """Shape of the checkpoint, in keys of `model`, as `speciate shape` prints it. Without it the shape of a model on a
    hub is read from its config.json, which is fetched once; that of any other archive is not known, so that `model`
    must be written whole."""

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        if self.shape is not None:
            try:
                ModelSpec.model_validate(self.shape)
            except pydantic.ValidationError as error:
                raise ConfigErrors([(f"shape.{path}", why) for path, why in config_errors(error)]) from None
            if "context" not in self.shape or "position" not in self.shape:
                raise ConfigErrors([("shape", "must name context and position, as `speciate shape` does")])
        return self

    def shape_of_model(self) -> Shape | None:
        """Return the shape that is written, or that of the model on a hub. Raises ValueError as `hub_shape` does."""
        ((name, source),) = self.sources().items()
        pinned = source.model_on_hub()
        if self.shape is not None:
            return Shape(self.shape, f"in source {name}" if pinned is None else commit_name(*pinned))
        return None if pinned is None else hub_shape(*pinned)
