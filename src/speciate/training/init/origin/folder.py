"""A folder of your own that transformers wrote: GPT-2's or Llama's config.json and .safetensors, or one GGUF file."""

import pathlib
from collections.abc import Callable

from pydantic import Field

from speciate.config.contracts.training import OriginOptions
from speciate.model.hf.pretrained import Pretrained, read_pretrained


class Options(OriginOptions):
    """Where."""

    path: str = Field(min_length=1)
    """The folder, relative to where the workflow runs."""

    def model_folder(self) -> str:
        """Return the user's folder."""
        return self.path

    def model_path(self, runs: pathlib.Path, seed: int, archive_of: Callable[[str], pathlib.Path]) -> str:
        """Return where the workflow has it."""
        return self.path


def read(options: Options, path: pathlib.Path) -> Pretrained:
    """The weights in the folder `path`. Raises ValueError as `read_pretrained` does."""
    return read_pretrained(path)
