"""Load a model from a folder of your own: GPT-2's or Llama's config.json and .safetensors, or one GGUF file."""

import pathlib
from collections.abc import Callable

from pydantic import Field

from speciate.config.contracts.training import OriginOptions
from speciate.config.pretrained.families import Shape
from speciate.config.pretrained.read import folder_shape
from speciate.model.hf.pretrained import Pretrained, read_pretrained


class Options(OriginOptions):
    """Options of the folder: its path."""

    path: str = Field(min_length=1)
    """Path of the folder, relative to where the workflow runs."""

    def model_folder(self) -> str:
        """Return the user's folder."""
        return self.path

    def shape_of_model(self) -> Shape:
        """Return the shape of the model in the folder. Raises ValueError as `folder_shape` does."""
        return folder_shape(pathlib.Path(self.path))

    def model_path(self, runs: pathlib.Path, seed: int, archive_of: Callable[[str], pathlib.Path]) -> str:
        """Return the folder's path."""
        return self.path


def load_model(options: Options, path: pathlib.Path) -> Pretrained:
    """Load the model in the folder `path`. Raises ValueError as `read_pretrained` does."""
    return read_pretrained(path)
