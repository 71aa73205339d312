"""Texts inside one Debian package, pinned by sha256 and read without installing it; an extra, where apt exists.

apt is the only client: it uses the user's mirror, proxy and keys. A mirror drops old versions, so a pin lasts as long
as its release of Debian. Use a `package` for what must stay reproducible longer.
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
    """Texts inside one pinned Debian package."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]+$")
    """Name of the package."""
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.+:~-]*$")
    """Version of the package, with epoch and revision: '1:1.99.1-7.3'."""
    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~%_-]*\.deb$")
    """Name of the file that apt downloads: NAME_VERSION_ARCHITECTURE.deb."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The file's sha256 in hex."""
    include: Annotated[tuple[str, ...], Strict(False)] = Field(min_length=1)
    """Globs of the files to read, such as 'usr/share/doc/*.txt.gz' (read decompressed); `*` also matches `/`."""
    exclude: Annotated[tuple[str, ...], Strict(False)] = ()
    """Globs of files to leave out."""
    reader: Annotated[ReaderOptions, OneOf("data/fetch/readers")]
    """How texts are read from a file."""


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Download the pinned package of source `name` to `target`. Raise ValueError as `apt.download` does."""
    download(Pin(options.name, options.version, options.file, options.sha256), name, target)


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the texts of source `name`.

    Raises:
        ValueError: the package is hostile or damaged, the reader cannot read a file, or no file matches.
    """
    globs = archives.Globs(options.include, options.exclude)
    yield from archives.read_passages(archive, name, globs, options.reader, file=options.file)
