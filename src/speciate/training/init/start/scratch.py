"""Start from weights drawn from the run's seed alone (model/initial_weights.py)."""

import pathlib

from speciate.config.contracts.training import StartOptions
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer


class Options(StartOptions):
    """Options of the start from scratch: none."""


def initialise(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Leave `model` as it was drawn. Raises ValueError if a model to start from was given."""
    if path is not None:
        raise ValueError(f"{run.ablation}: starts from scratch, so leave --start out")
