"""Weights drawn from the run's seed (model/initial_weights.py), and nothing else."""

import pathlib

from speciate.config.contracts.training import StartOptions
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer


class Options(StartOptions):
    """None."""


def begin(options: Options, model: Transformer, run: RunSpec, path: pathlib.Path | None) -> None:
    """Leaves `model` as it was drawn. Raises ValueError where something to start from was given."""
    if path is not None:
        raise ValueError(f"{run.ablation}: starts from scratch, so --start has no meaning")
