"""The files of a published tokenizer: from a model on the Hugging Face hub (or the hub at HF_ENDPOINT), or local.

Only tokenizer.json is needed, the file of transformers' fast tokenizers; tokenizer_config.json, if there is one, names
the token that ends a text. No code of a model is ever run. Both files are copied at once, so nothing after `fetch`
needs a network.
"""

import functools
import pathlib
from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from speciate.config.contracts.data import SourceOptions
from speciate.data.fetch.hub_client import call_with_retries, import_hub
from speciate.data.fetch.passages import read_passages, write_passages
from speciate.data.passage import Passage
from speciate.data.shard import Shard

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


class Options(SourceOptions):
    """A tokenizer of a model on a hub, or one in a folder: one of the two."""

    repository: str | None = Field(None, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Model on the hub, as owner/name."""
    revision: str | None = Field(None, pattern=r"^([0-9a-f]{40}|unpinned)$")
    """Commit of the model, 40 hex digits; `unpinned` makes fetch stop and report the commit to write here."""
    path: str | None = Field(None, min_length=1)
    """A folder that holds tokenizer.json, or such a file, relative to the folder in which the workflow runs."""

    @model_validator(mode="after")
    def _check_location(self) -> Self:
        if (self.repository is None) == (self.path is None):
            raise ValueError("needs a repository with its revision, or a path")
        if (self.repository is None) != (self.revision is None):
            raise ValueError("revision: goes with a repository, and a repository needs one")
        return self

    def local_globs(self) -> tuple[str, ...]:
        """Return the paths of the user's own tokenizer files: the tokenizer, and the config beside it."""
        if self.path is None:
            return ()
        path = pathlib.PurePath(self.path)
        tokenizer = path if path.suffix == ".json" else path / "tokenizer.json"
        return (str(tokenizer), str(tokenizer.parent / "tokenizer_config.json"))


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Write the tokenizer's files to `target`.

    Raises:
        ValueError: the hub cannot be reached, refuses, or has no such repository or revision, or there is no
            tokenizer.json. The message names the source.
    """
    if options.path is not None:
        texts = _read_local_files(pathlib.Path(options.path), f"source {name}: path {options.path}")
        origin = {"path": options.path}
    else:
        assert options.repository is not None and options.revision is not None
        texts = _read_hub_files(options.repository, options.revision, f"source {name}: repository {options.repository}")
        origin = {"repository": options.repository, "commit": options.revision}
    write_passages(target, [Passage(file, None, text) for file, text in texts.items()], origin)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the files that `fetch` wrote, each with its name as id. Raise ValueError if `archive` is damaged."""
    yield from read_passages(archive)


def _read_local_files(path: pathlib.Path, where: str) -> dict[str, str]:
    folder = path if path.is_dir() else path.parent
    files = {TOKENIZER_FILE: folder / TOKENIZER_FILE if path.is_dir() else path, CONFIG_FILE: folder / CONFIG_FILE}
    if not files[TOKENIZER_FILE].is_file():
        raise ValueError(f"{where}: there is no {TOKENIZER_FILE}, the file of transformers' fast tokenizers")
    return {name: _read_utf8(file, where) for name, file in files.items() if file.is_file()}


def _read_hub_files(repository: str, revision: str, where: str) -> dict[str, str]:
    library = import_hub()
    if revision == "unpinned":
        info = call_with_retries(lambda: library.HfApi().model_info(repository, timeout=30), where, revision)
        raise ValueError(f"{where}: revision: is not pinned; its newest commit is {info.sha}: write that in the study")

    def download(file: str) -> pathlib.Path | None:
        try:
            return pathlib.Path(library.hf_hub_download(repository, file, revision=revision))
        except library.errors.LocalEntryNotFoundError:  # the file is missing only for lack of a connection
            raise
        except library.errors.EntryNotFoundError:
            return None

    paths = {
        file: call_with_retries(functools.partial(download, file), where, revision)
        for file in (TOKENIZER_FILE, CONFIG_FILE)
    }
    if paths[TOKENIZER_FILE] is None:
        raise ValueError(
            f"{where}: has no {TOKENIZER_FILE} at {revision[:10]}, the file of transformers' fast tokenizers"
        )
    return {name: _read_utf8(file, where) for name, file in paths.items() if file is not None}


def _read_utf8(file: pathlib.Path, where: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # a byte-order mark is no JSON
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: {file.name} is not UTF-8: {error}") from None
