"""Load a model from the finished run of another ablation of the same study, with the same seed."""

import pathlib
from collections.abc import Callable

import safetensors
import safetensors.torch
from pydantic import Field

from speciate.config.contracts.training import OriginOptions
from speciate.config.run import RunSpec, read_spec
from speciate.model.hf.pretrained import Pretrained


class Options(OriginOptions):
    """Options of the run: its ablation."""

    ablation: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the ablation whose run of the same seed is loaded."""

    def parent_ablation(self) -> str:
        """Return the ablation whose run it is."""
        return self.ablation

    def model_path(self, runs: pathlib.Path, seed: int, archive_of: Callable[[str], pathlib.Path]) -> str:
        """Return the path of the run's weights."""
        return f"{runs}/{self.ablation}/seed{seed}/model.safetensors"


def load_model(options: Options, path: pathlib.Path) -> Pretrained:
    """Load the model of `path`, a run's model.safetensors with its spec.json next to it.

    Raises:
        ValueError: one of the two cannot be read, or the run is another ablation's.
    """
    run = read_spec(RunSpec, path.with_name("spec.json"))
    if run.ablation != options.ablation:
        raise ValueError(f"{path}: is the run of {run.ablation}, not of {options.ablation}")
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: is not a readable weights file: {error}") from None
    return Pretrained(run.model, weights, f"{run.ablation} seed {run.seed}")
