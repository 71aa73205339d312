"""The finished run of another ablation of the same study, of the same seed."""

import pathlib
from collections.abc import Callable

import safetensors
import safetensors.torch
from pydantic import Field

from speciate.config.contracts.training import OriginOptions
from speciate.config.run import RunSpec, read_spec
from speciate.model.hf.pretrained import Pretrained


class Options(OriginOptions):
    """Which."""

    ablation: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """The ablation's name."""

    def parent_ablation(self) -> str:
        """Return the ablation whose run it is."""
        return self.ablation

    def model_path(self, runs: pathlib.Path, seed: int, archive_of: Callable[[str], pathlib.Path]) -> str:
        """Return where the workflow has it."""
        return f"{runs}/{self.ablation}/seed{seed}/model.safetensors"


def read(options: Options, path: pathlib.Path) -> Pretrained:
    """The weights in `path`, the run's model.safetensors, beside which its spec.json lies.

    Raises:
        ValueError: one of the two cannot be read, or they are another ablation's.
    """
    run = read_spec(RunSpec, path.with_name("spec.json"))
    if run.ablation != options.ablation:
        raise ValueError(f"{path}: is a run of {run.ablation}, not of {options.ablation}")
    try:
        weights = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path}: is no weights file: {error}") from None
    return Pretrained(run.model, weights, f"{run.ablation} seed {run.seed}")
