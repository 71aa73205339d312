"""Load a model from the Hugging Face hub (or the hub at HF_ENDPOINT): its config.json and .safetensors at one commit.

The workflow fetches the files once (data/fetch/sources/model_files.py). Planning needs the config.json alone.
"""

import pathlib
from collections.abc import Callable

from pydantic import Field

from speciate.config.components import options_of
from speciate.config.contracts.data import SourceOptions
from speciate.model.hf.pretrained import Pretrained
from speciate.training.init.fetched_model import load_fetched_model
from speciate.training.init.origin_options import FetchedOriginOptions


class Options(FetchedOriginOptions):
    """Options of the model: its name and its commit."""

    repository: str = Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Model on the hub, as owner/name."""
    revision: str = Field(pattern=r"^([0-9a-f]{40}|unpinned)$")
    """Commit of the model, 40 hex digits; with `unpinned`, planning stops and reports the commit to write here."""

    def source_name(self) -> str:
        """Return the name of the model's files in results/data/fetch."""
        plain = "".join(letter if letter.isalnum() else "_" for letter in self.repository.lower())
        return f"hub_{plain}_{self.revision[:10]}"

    def sources(self) -> dict[str, SourceOptions]:
        """Return the one source that the workflow fetches."""
        files = {"kind": "model_files", "repository": self.repository, "revision": self.revision}
        source: SourceOptions = options_of("data/fetch/sources", "model_files").model_validate(files)  # type: ignore[assignment]
        return {self.source_name(): source}

    def model_path(self, runs: pathlib.Path, seed: int, archive_of: Callable[[str], pathlib.Path]) -> str:
        """Return the path of the fetched files."""
        return str(archive_of(self.source_name()))


def load_model(options: Options, path: pathlib.Path) -> Pretrained:
    """Load the model in the fetched files `path`. Raises ValueError as `load_fetched_model` does."""
    ((name, source),) = options.sources().items()
    return load_fetched_model(source, name, path)
