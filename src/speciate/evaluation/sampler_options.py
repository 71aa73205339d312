"""Options that the samplers of masked text share."""

from pydantic import Field

from speciate.config.contracts.evaluation import SamplerOptions


class DiffusionTimeOptions(SamplerOptions):
    """Options of a sampler that runs the diffusion backwards in even steps of time."""

    num_steps: int = Field(64, ge=1)
    """Number of steps from t = 1 to t = 0."""


class OrderedOptions(SamplerOptions):
    """Options of a sampler that replaces equally many masks at each step, in its own order."""

    num_steps: int | None = Field(None, ge=1)
    """Number of steps; null: as many as there are masks, one at a time."""
