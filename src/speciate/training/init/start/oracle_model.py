"""Start from weights drawn from the seed, with a trained causal model as the oracle of the objective's importance."""

import pathlib
from typing import Any, ClassVar

from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training.init.start_options import TrainedStartOptions
from speciate.training.init.transfer import copy_weights


class Options(TrainedStartOptions):
    """Options of the oracle's weights; the origin is a causal model."""

    loads_oracle: ClassVar[bool] = True
    """Whether its origin becomes the oracle of the objective's importance, not the model itself."""

    def check_run(self, run: Any) -> None:
        """Refuse a run without an oracle."""
        if not run.objective.needs_oracle():
            raise ValueError("start: oracle_model is only for a run with objective.importance: oracle")

    def difference(self, model: Any, origin: Any) -> str:
        """Return why a model like `origin` cannot be the oracle of one like `model`; empty: it can."""
        if not origin.causal:
            return "an oracle must be a causal model, and model.causal is False there"
        why: str = model.model_copy(update={"causal": True}).difference(origin)
        return why


def initialise(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Copy the oracle's weights into `model`. Raises ValueError naming the first weight that does not fit."""
    if path is None:
        raise ValueError(f"{run.ablation}: start: oracle_model needs a causal model (--start)")
    source = options.origin.component().load_model(options.origin, path)
    difference = options.difference(run.model, source.model)
    if difference:
        raise ValueError(f"{run.ablation}: cannot use {source.origin} as its oracle: {difference}")
    copy_weights(model.parts["importance"].estimator.teacher, source, [])  # type: ignore[arg-type, union-attr]
