"""Contract of the samplers of masked text."""

from typing import TYPE_CHECKING, Any, Protocol, cast

from speciate.config.components import ComponentOptions, component_module

if TYPE_CHECKING:
    from speciate.evaluation.unmasking import Sampler


class SamplerModule(Protocol):
    """A kind of sampler: `evaluation/sampler/<kind>.py`."""

    def Sampler(self, options: Any, /) -> "Sampler":
        """Build the sampler."""


class SamplerOptions(ComponentOptions):
    """Options of a sampler of masked text."""

    def component(self) -> SamplerModule:
        return cast(SamplerModule, component_module(self))
