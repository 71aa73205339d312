"""Weights drawn from the seed, and those of a causal model for the oracle that says which tokens are important."""

import pathlib
from typing import Annotated, Any, ClassVar

from speciate.config.components import ComponentOptions, OneOf, component_module
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training.init.transfer import copy_weights


class Options(ComponentOptions):
    """Whose weights the oracle has."""

    origin: Annotated[ComponentOptions, OneOf("training/init/origin")]
    """The causal model: a run of this study, a folder of yours, a pinned archive."""

    loads_oracle: ClassVar[bool] = True
    """What is taken over is an oracle's, not the model's own."""

    def check_run(self, run: Any) -> None:
        """Refuses a run without an oracle."""
        if not getattr(getattr(run.objective, "importance", None), "taught", False):
            raise ValueError("start: a teacher is for objective.importance: oracle, and there is none")

    def unlike(self, mine: Any, theirs: Any) -> str:
        """Why a model like `theirs` cannot teach one like `mine`; empty: it can."""
        if not theirs.causal:
            return "an oracle asks a causal model, and model.causal is False there"
        why: str = mine.model_copy(update={"causal": True}).unlike(theirs)
        return why


def begin(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Fills the oracle. Raises ValueError where the weights do not fit, naming the first that does not."""
    if path is None:
        raise ValueError(f"{run.ablation}: start: a teacher needs a causal model (--start)")
    given = component_module(options.origin).read(options.origin, path)
    unlike = options.unlike(run.model, given.model)
    if unlike:
        raise ValueError(f"{run.ablation}: cannot be taught by {given.origin}: {unlike}")
    copy_weights(model.parts["importance"].estimator.teacher, given, [])  # type: ignore[arg-type, union-attr]
