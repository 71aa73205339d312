"""The files of a model on the Hugging Face hub (or the hub at HF_ENDPOINT), in one tar: what a run may start from.

No code of a model is ever run, and no pickle is fetched unless the study asks for it. Downloads stay in the user's
cache (HF_HOME), so that a retry continues. The tar holds names and bytes alone, so one commit gives one tar.
"""

import fnmatch
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, Strict

from speciate.config.contracts.data import SourceOptions
from speciate.data.fetch.hub_client import call_with_retries, import_hub
from speciate.data.passage import Passage
from speciate.data.shard import Shard


class Options(SourceOptions):
    """A model on a hub."""

    repository: str = Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Model on the hub, as owner/name."""
    revision: str = Field(pattern=r"^([0-9a-f]{40}|unpinned)$")
    """Commit of the model, 40 hex digits; `unpinned` makes fetch stop and report the commit to write here."""
    include: Annotated[tuple[str, ...], Strict(False)] = ("config.json", "*.safetensors")
    """Globs of the files to fetch; `*` also matches `/`."""
    exclude: Annotated[tuple[str, ...], Strict(False)] = ()
    """Globs of files to leave out."""

    def model_on_hub(self) -> tuple[str, str]:
        """Return the repository and the commit."""
        return self.repository, self.revision


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Write the files to `target`, a tar.

    Raises:
        ValueError: the hub cannot be reached, refuses, or has no such repository, revision or file; the message names
            the source.
    """
    where = f"source {name}: repository {options.repository}"
    library = import_hub()
    commit = None if options.revision == "unpinned" else options.revision
    api = library.HfApi()
    info = call_with_retries(
        lambda: api.model_info(options.repository, revision=commit, timeout=30), where, options.revision
    )
    if commit is None:
        raise ValueError(f"{where}: revision: is not pinned; its newest commit is {info.sha}: write that in the study")
    repository_files = sorted(sibling.rfilename for sibling in info.siblings or ())
    files = [
        file
        for file in repository_files
        if _matches_any(options.include, file) and not _matches_any(options.exclude, file)
    ]
    if not files:
        raise ValueError(f"{where}: include: none of its files matches {', '.join(options.include)} and no exclude")
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for file in files:
            path = call_with_retries(
                lambda file=file: library.hf_hub_download(options.repository, file, revision=commit),  # type: ignore[misc]
                where,
                options.revision,
            )
            entry = tarfile.TarInfo(file)
            entry.size = pathlib.Path(path).stat().st_size
            with open(path, "rb") as content:
                archive.addfile(entry, content)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Raise ValueError: the archive holds no texts."""
    raise ValueError(f"source {name}: model_files holds weights to start from, and no texts")


def _matches_any(globs: tuple[str, ...], file: str) -> bool:
    return any(fnmatch.fnmatchcase(file, glob) for glob in globs)
