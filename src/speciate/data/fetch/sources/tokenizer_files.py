"""The files of a published tokenizer: those of a model on the Hugging Face hub (or what HF_ENDPOINT names), or yours.

Only tokenizer.json is needed, the file of transformers' fast tokenizers; tokenizer_config.json, where there is one,
names the token that ends a text. No code of a model is ever run. Both are written down at once, so nothing after
`fetch` needs a network.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from speciate.config.contracts.data import SourceOptions
from speciate.data.documents import Passage, Shard
from speciate.data.fetch.hub_client import explained, hub_library
from speciate.data.fetch.passages import read_passages, write_passages

NEEDED, CONFIG = "tokenizer.json", "tokenizer_config.json"


class Options(SourceOptions):
    """A tokenizer of a model on a hub, or one in a folder: one of the two."""

    repository: str | None = Field(None, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
    """owner/name of a model on the hub."""
    revision: str | None = Field(None, pattern=r"^([0-9a-f]{40}|unpinned)$")
    """Its commit, 40 hex digits; `unpinned` makes fetch stop and say which commit to write here."""
    path: str | None = Field(None, min_length=1)
    """A folder that holds tokenizer.json, or such a file, relative to where the workflow runs."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.repository is None) == (self.path is None):
            raise ValueError("needs a repository with its revision, or a path")
        if (self.repository is None) != (self.revision is None):
            raise ValueError("revision: goes with a repository, and a repository needs one")
        return self

    def local_globs(self) -> tuple[str, ...]:
        """Globs of the user's own files."""
        if self.path is None:
            return ()
        return (self.path,) if self.path.endswith(".json") else (f"{self.path.rstrip('/')}/tokenizer*.json",)


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Writes the tokenizer's files to `target`.

    Raises:
        ValueError: the hub cannot be reached, refuses, or has no such repository or revision; there is no
            tokenizer.json. Names the source.
    """
    if options.path is not None:
        texts = _local(pathlib.Path(options.path), f"source {name}: path {options.path}")
        origin = {"path": options.path}
    else:
        assert options.repository is not None and options.revision is not None
        texts = _of_hub(options.repository, options.revision, f"source {name}: repository {options.repository}")
        origin = {"repository": options.repository, "commit": options.revision}
    write_passages(target, [Passage(file, file, text) for file, text in texts.items()], origin)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """The files that `fetch` wrote, each a text with its name as id. Raises ValueError where `archive` is damaged."""
    yield from read_passages(archive)


def _local(path: pathlib.Path, where: str) -> dict[str, str]:
    folder = path if path.is_dir() else path.parent
    files = {NEEDED: folder / NEEDED if path.is_dir() else path, CONFIG: folder / CONFIG}
    if not files[NEEDED].is_file():
        raise ValueError(f"{where}: there is no {NEEDED}, the file of transformers' fast tokenizers")
    return {name: _text(file, where) for name, file in files.items() if file.is_file()}


def _of_hub(repository: str, revision: str, where: str) -> dict[str, str]:
    library = hub_library()
    if revision == "unpinned":
        info = explained(lambda: library.HfApi().model_info(repository, timeout=30), where, revision)
        raise ValueError(f"{where}: revision: is not pinned; its newest commit is {info.sha}: write that in the study")

    def download(file: str) -> pathlib.Path | None:
        try:
            return pathlib.Path(library.hf_hub_download(repository, file, revision=revision))
        except library.errors.LocalEntryNotFoundError:  # not there for lack of a connection
            raise
        except library.errors.EntryNotFoundError:
            return None

    found = {file: explained(functools.partial(download, file), where, revision) for file in (NEEDED, CONFIG)}
    if found[NEEDED] is None:
        raise ValueError(f"{where}: has no {NEEDED} at {revision[:10]}, the file of transformers' fast tokenizers")
    return {name: _text(file, where) for name, file in found.items() if file is not None}


def _text(file: pathlib.Path, where: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: {file.name} is no UTF-8: {error}") from None
