"""Texts inside one package of Debian, pinned by sha256 and read without installing: an extra, where apt exists.

apt is the only client: mirror, proxy and keys are those that apt is already set up with. A mirror drops old versions,
so such a pin lasts as long as its release of Debian; what must stay reproducible longer is better a `package`.
"""

import pathlib
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, Strict

from speciate.config.components import OneOf
from speciate.config.contracts.data import ReaderOptions, SourceOptions
from speciate.data.fetch import archive as archives
from speciate.data.fetch.apt import download
from speciate.data.fetch.pip import Pin
from speciate.data.passage import Passage
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Texts inside one pinned package of Debian."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]+$")
    """The package."""
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.+:~-]*$")
    """Its version, with epoch and revision: '1:1.99.1-7.3'."""
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~%_-]*\.deb$")
    """The file's name as apt brings it: NAME_VERSION_ARCHITECTURE.deb."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The file's sha256."""
    include: Annotated[tuple[str, ...], Strict(False)] = Field(min_length=1)
    """Globs of the files to read, such as 'usr/share/doc/*.txt.gz' (read decompressed); `*` also matches `/`."""
    exclude: Annotated[tuple[str, ...], Strict(False)] = ()
    """Globs of files to leave out."""
    reader: Annotated[ReaderOptions, OneOf("data/fetch/readers")]
    """How texts are read out of a file."""


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Downloads the pinned package of source `name` to `target`. Raises ValueError as `apt.download` does."""
    download(Pin(options.name, options.version, options.file, options.sha256), name, target)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """The texts of source `name`.

    Raises:
        ValueError: a hostile or damaged package, a file the reader cannot read, or none that matches.
    """
    globs = archives.Globs(options.include, options.exclude)
    yield from archives.read_passages(archive, name, globs, options.reader, options.file)
