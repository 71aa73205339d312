"""Contracts of the training components: what each slot's options may say, and what its module must offer.

A component subclasses its slot's options and sets only what differs from the defaults here. Its module offers what the
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

    from speciate.model.hf.pretrained import Pretrained
    from speciate.model.transformer import Transformer
    from speciate.training.logs.sinks import Sink
    from speciate.training.loss.objective import Objective


class ObjectiveModule(Protocol):
    """A kind of objective: `training/objective/<kind>.py`."""

    def parts(self, options: Any, run: Any) -> "dict[str, nn.Module]":
        """Return what the objective adds to the model, by name; `run` is the RunSpec."""

    def Objective(self, options: Any, /) -> "Objective":
        """Build the loss."""


class ObjectiveOptions(ComponentOptions):
    """Options of what is minimised."""

    causal: ClassVar[bool] = True
    """Whether it needs a model in which each position sees only those before it."""
    extra_tokens: ClassVar[int] = 0
    """Token ids that it needs beyond the tokenizer's ([MASK]: the last one)."""

    def check_length(self, block_length: int) -> None:
        """Refuse blocks of `block_length` tokens by a ValueError where they are too short."""

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
    """Options of which tokens of a masked-diffusion model are important, and so masked more."""

    has_selector: ClassVar[bool] = True
    """Whether there is an importance at all, so that masking can act by it."""
    published: ClassVar[bool] = False
    """Whether the original release has it."""
    needs_oracle: ClassVar[bool] = False
    """Whether it asks a causal model of the same study."""

    def learned_share(self) -> float:
        """Return the learned network's share of the importance; the rest is what is known of the token."""
        return 0.0

    def component(self) -> ImportanceModule:
        return cast(ImportanceModule, component_module(self))


class NoiseModule(Protocol):
    """A kind of noise schedule: `training/diffusion/noise/<kind>.py`."""

    def mask_share(self, options: Any, uniform_B: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the share of masked tokens at each time, and its slope; (B,) each."""


class NoiseOptions(ComponentOptions):
    """Options of how the share of masked tokens runs in time."""

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
        """Return the share of the peak learning rate that step `step` (0 <= step < num_steps) is made with."""


class ScheduleOptions(ComponentOptions):
    """Options of the learning rate over the steps."""

    def component(self) -> ScheduleModule:
        return cast(ScheduleModule, component_module(self))


class OriginModule(Protocol):
    """A kind of origin: `training/init/origin/<kind>.py`."""

    def load_model(self, options: Any, path: pathlib.Path) -> "Pretrained":
        """Read the model that `path` holds."""


class OriginOptions(ComponentOptions):
    """Options of where a trained model comes from."""

    def parent_ablation(self) -> str | None:
        """Return the ablation of the same study whose run it is; None: it is no run of the study."""
        return None

    def sources(self) -> Mapping[str, SourceOptions]:
        """Return the sources, by name, that the workflow fetches for it."""
        return {}

    def model_folder(self) -> str | None:
        """Return the user's own folder that holds the model; None: it is elsewhere."""
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
    """Options of what a run's weights are before its first step."""

    loads_oracle: ClassVar[bool] = False
    """Whether its origin becomes the oracle of the objective's importance, not the model itself."""

    def origin_options(self) -> OriginOptions | None:
        """Return where the start's weights come from; None: they are drawn."""
        return None

    def difference(self, model: Any, origin: Any) -> str:
        """Return why weights of a model like `origin` cannot serve one like `model` (ModelSpecs); empty: they can."""
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
    """Options of where metrics go besides metrics.jsonl."""

    def component(self) -> SinkModule:
        return cast(SinkModule, component_module(self))
