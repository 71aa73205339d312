"""A folder of your own that transformers wrote: GPT-2's or Llama's config.json and .safetensors, or one GGUF file."""

import pathlib
from typing import Any

from pydantic import Field

from speciate.config.components import ComponentOptions
from speciate.model.hf.pretrained import Pretrained, read_pretrained


class Options(ComponentOptions):
    """Where."""

    path: str = Field(min_length=1)
    """The folder, relative to where the workflow runs."""

    def place(self, runs: Any, seed: int, fetched: Any) -> str:
        """Where the workflow has it."""
        return self.path


def read(options: Options, path: pathlib.Path) -> Pretrained:
    """The weights in the folder `path`. Raises ValueError as `read_pretrained` does."""
    return read_pretrained(path)
