"""Contracts of the training components: the options of each slot, and what its module must define.

A component subclasses its slot's options and sets only what differs from the defaults here. Its module defines what the
slot's Protocol names; `options.component()` loads that module.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from speciate.config.components import ComponentOptions, component_module
from speciate.config.contracts.data import SourceOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from speciate.config.pretrained.families import Shape
    from speciate.model.hf.pretrained import Pretrained
    from speciate.model.transformer import Transformer
    from speciate.training.logs.sinks import Sink
    from speciate.training.objective_base import Objective


class ObjectiveModule(Protocol):
    """A kind of objective: `training/objective/<kind>.py`."""

    def parts(self, options: Any, run: Any) -> "dict[str, nn.Module]":
        """Return what the objective adds to the model, by name; `run` is the RunSpec."""

    def Objective(self, options: Any, /) -> "Objective":
        """Build the loss."""


class ObjectiveOptions(ComponentOptions):
    """Options of an objective: what training minimises."""

    causal: ClassVar[bool] = True
    """Whether it needs a model in which each position sees only those before it."""
    extra_tokens: ClassVar[int] = 0
    """Token ids that it needs beyond the tokenizer's ([MASK]: the last one)."""

    def check_length(self, block_length: int) -> None:
        """Raise ValueError if blocks of `block_length` tokens are too short."""

    def needs_oracle(self) -> bool:
        """Return whether it asks a causal model which tokens are important."""
        return False

    def component(self) -> ObjectiveModule:
        return cast(ObjectiveModule, component_module(self))


class ImportanceModule(Protocol):
    """A kind of importance: `training/diffusion/importance/<kind>.py`."""

    def Importance(self, options: Any, context: Any, /) -> "nn.Module":
        """Build the module that says how important each token is."""


class ImportanceOptions(ComponentOptions):
    """Options of an importance: which tokens a masked-diffusion model masks more often."""

    has_selector: ClassVar[bool] = True
    """Whether it gives an importance at all, on which masking can depend."""
    published: ClassVar[bool] = False
    """Whether the original release has it."""
    needs_oracle: ClassVar[bool] = False
    """Whether it asks a causal model of the same study."""

    def learned_share(self) -> float:
        """Return the learned network's share of the importance; the rest comes from the token's frequency."""
        return 0.0

    def component(self) -> ImportanceModule:
        return cast(ImportanceModule, component_module(self))


class NoiseModule(Protocol):
    """A kind of noise schedule: `training/diffusion/noise/<kind>.py`."""

    def mask_share(self, options: Any, uniform_B: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the share of masked tokens at each time, and its slope; (B,) each."""


class NoiseOptions(ComponentOptions):
    """Options of a noise schedule: the share of masked tokens over time."""

    def component(self) -> NoiseModule:
        return cast(NoiseModule, component_module(self))


class OptimizerModule(Protocol):
    """A kind of optimizer: `training/optimizer/<kind>.py`."""

    def build(self, options: Any, model: "nn.Module") -> "torch.optim.Optimizer":
        """Build the optimizer over the parameters of `model` that learn."""


class OptimizerOptions(ComponentOptions):
    """Options of an optimizer."""

    supports_sharding: ClassVar[bool] = True
    """Whether its update works on a part of a matrix, as fsdp needs."""

    def component(self) -> OptimizerModule:
        return cast(OptimizerModule, component_module(self))


class ScheduleModule(Protocol):
    """A kind of schedule: `training/schedule/<kind>.py`."""

    def factor(self, options: Any, step: int, num_steps: int) -> float:
        """Return the share of the peak learning rate at step `step` (0 <= step < num_steps)."""


class ScheduleOptions(ComponentOptions):
    """Options of a schedule: the learning rate over the steps."""

    def component(self) -> ScheduleModule:
        return cast(ScheduleModule, component_module(self))


class OriginModule(Protocol):
    """A kind of origin: `training/init/origin/<kind>.py`."""

    def load_model(self, options: Any, path: pathlib.Path) -> "Pretrained":
        """Read the model that `path` holds."""


class OriginOptions(ComponentOptions):
    """Options of an origin: where a trained model comes from."""

    def parent_ablation(self) -> str | None:
        """Return the ablation of the same study whose run it is; None: it is not a run of the study."""
        return None

    def sources(self) -> Mapping[str, SourceOptions]:
        """Return the sources, by name, that the workflow fetches for it."""
        return {}

    def model_folder(self) -> str | None:
        """Return the user's own folder that holds the model; None: it is elsewhere."""
        return None

    def shape_of_model(self) -> "Shape | None":
        """Return the model's shape, as far as it is known before anything is fetched; None: it is not.

        Raises:
            ValueError: the model cannot be read, or is not supported.
        """
        return None

    def model_path(self, runs: pathlib.Path, seed: int, archive_of: Callable[[str], pathlib.Path]) -> str:
        """Return where the workflow has the model.

        Args:
            runs: the folder of the study's runs.
            seed: the seed of the run that starts from it.
            archive_of: name of a source -> its archive.
        """
        raise ValueError(f"origin {self.kind} does not say where its model is")

    def component(self) -> OriginModule:
        return cast(OriginModule, component_module(self))


class StartModule(Protocol):
    """A kind of start: `training/init/start/<kind>.py`."""

    def initialise(self, options: Any, model: "Transformer", run: Any, path: pathlib.Path | None) -> None:
        """Give `model` its weights before the first step; `path` is where the workflow has its origin."""


class StartOptions(ComponentOptions):
    """Options of a start: a run's weights before its first step."""

    loads_oracle: ClassVar[bool] = False
    """Whether its origin becomes the oracle of the objective's importance, not the model itself."""
    fills_experts: ClassVar[bool] = False
    """Whether experts are filled from the origin's dense layers, so that their sizes and activations must agree."""

    def origin_options(self) -> OriginOptions | None:
        """Return where the start's weights come from; None: they are drawn."""
        return None

    def difference(self, model: Any, origin: Any) -> str:
        """Return why weights of the ModelSpec `origin` do not fit the ModelSpec `model`; empty: they do."""
        why: str = model.difference(origin)
        return why

    def component(self) -> StartModule:
        return cast(StartModule, component_module(self))


class SinkModule(Protocol):
    """A kind of sink: `training/logs/sink/<kind>.py`."""

    def Sink(
        self, options: Any, /, *, label: str, folder: pathlib.Path, config: Mapping[str, Any], first_step: int
    ) -> "Sink":
        """Open the place where a run's metrics go besides metrics.jsonl."""


class SinkOptions(ComponentOptions):
    """Options of a sink: where metrics go besides metrics.jsonl."""

    def component(self) -> SinkModule:
        return cast(SinkModule, component_module(self))
