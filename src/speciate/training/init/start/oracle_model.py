"""Weights drawn from the seed, and those of a causal model for the oracle that says which tokens are important."""

import pathlib
from typing import Annotated, Any, ClassVar

from speciate.config.components import OneOf
from speciate.config.contracts.training import OriginOptions, StartOptions
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training.init.transfer import copy_weights


class Options(StartOptions):
    """Whose weights the oracle has."""

    origin: Annotated[OriginOptions, OneOf("training/init/origin")]
    """The causal model: a run of this study, a folder of yours, a pinned archive."""

    loads_oracle: ClassVar[bool] = True
    """What is taken over is an oracle's, not the model's own."""

    def origin_options(self) -> OriginOptions:
        """Return where the oracle's weights come from."""
        return self.origin

    def check_run(self, run: Any) -> None:
        """Refuses a run without an oracle."""
        if not run.objective.needs_oracle():
            raise ValueError("start: oracle_model is for objective.importance: oracle, and there is none")

    def difference(self, model: Any, origin: Any) -> str:
        """Why a model like `origin` cannot teach one like `model`; empty: it can."""
        if not origin.causal:
            return "an oracle asks a causal model, and model.causal is False there"
        why: str = model.model_copy(update={"causal": True}).difference(origin)
        return why


def begin(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Fills the oracle. Raises ValueError where the weights do not fit, naming the first that does not."""
    if path is None:
        raise ValueError(f"{run.ablation}: start: oracle_model needs a causal model (--start)")
    given = options.origin.component().read(options.origin, path)
    difference = options.difference(run.model, given.model)
    if difference:
        raise ValueError(f"{run.ablation}: cannot use {given.origin} as its oracle: {difference}")
    copy_weights(model.parts["importance"].estimator.teacher, given, [])  # type: ignore[arg-type, union-attr]
