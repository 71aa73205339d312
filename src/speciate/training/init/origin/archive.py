"""A pinned archive that the workflow fetches, with a checkpoint in it: a transformers folder's files, or one GGUF file.

The default is SmolLM2-135M (Ben Allal et al. 2025; Llama's shape, 8 bits and 4), which ships in a Python package.
"""

import pathlib
import tempfile
from typing import Annotated, Any

from pydantic import Field

from speciate.config.components import ComponentOptions, OneOf
from speciate.data.fetch import archive as archives
from speciate.model.hf.pretrained import Pretrained, read_pretrained


class Options(ComponentOptions):
    """Which."""

    name: str = Field("start", pattern=r"^[a-z][a-z0-9_]*$")
    """What the source is called in results/data/fetch."""
    source: Annotated[ComponentOptions, OneOf("data/fetch/sources")] = Field(
        default={"kind": "gguf"}, validate_default=True
    )
    """The pinned source whose members are the checkpoint's files: of kind gguf, model_files or package."""

    def place(self, runs: Any, seed: int, fetched: Any) -> str:
        """Where the workflow has it."""
        return str(fetched(self.name))


def read(options: Options, path: pathlib.Path) -> Pretrained:
    """The weights in the archive `path`. Raises ValueError where it is damaged, and as `read_pretrained` does."""
    source: Any = options.source
    globs = archives.Globs(source.include, source.exclude)
    with tempfile.TemporaryDirectory(prefix="speciate-start-") as name:
        folder = pathlib.Path(name)
        archives.extract(path, options.name, globs, folder)
        given = read_pretrained(folder)
    return Pretrained(given.model, given.weights, f"source {options.name}")
