"""Reads the members of a zip, tar or Debian archive into memory, one at a time, without extracting or installing it.

An archive is somebody else's file: a name that leaves the archive's folder, a link where text should be, a member that
swells beyond its limit, a damaged or cut-off file each end the stage with a message that names source and member.
"""

import bz2
import contextlib
import fnmatch
import gzip
import io
import lzma
import pathlib
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch import deb
from speciate.data.passage import Passage

MAX_MEMBER_BYTES = 128 << 20
"""Largest member, decompressed."""
MAX_TOTAL_BYTES = 2 << 30
"""Most that one archive may give, decompressed."""

DRIVE_LETTER = re.compile(r"[A-Za-z]:")
ENCRYPTED_FLAG = 0x1
"""Of a zip member's flags."""
DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    NotImplementedError,  # zipfile: a compression it does not know
)
DECOMPRESSORS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Globs:
    """Which members to read: `*` also matches `/`."""

    include: Sequence[str]
    exclude: Sequence[str] = ()

    def match(self, name: str) -> bool:
        """Whether a member of this name is wanted."""
        wanted = any(fnmatch.fnmatchcase(name, glob) for glob in self.include)
        return wanted and not any(fnmatch.fnmatchcase(name, glob) for glob in self.exclude)


def read_members(
    archive: pathlib.Path,
    source: str,
    globs: Globs,
    member_bytes: int = MAX_MEMBER_BYTES,
    total_bytes: int = MAX_TOTAL_BYTES,
) -> Iterator[tuple[str, bytes]]:
    """The wanted members of `archive` as (name, bytes), in the archive's order.

    A member that is itself compressed (.gz, .bz2, .xz) comes decompressed, under the same limits.

    Args:
        archive: a zip (a wheel is one), a tar, compressed or not, or a Debian package, told apart by content.
        source: the source's name in the study, for messages.
        globs: the members wanted.
        member_bytes: largest member, decompressed.
        total_bytes: most that all members may hold together.

    Raises:
        ValueError: hostile, damaged or too large; names the source and the member.
    """
    if not archive.is_file():
        raise ValueError(f"source {source}: there is no archive {archive}")
    left = total_bytes
    for name, stream in _open_members(archive, source, globs):
        with _explain_damage(f"source {source}: member {name} is damaged or cut off"):
            data = stream.read(member_bytes + 1)
        with _explain_damage(f"source {source}: member {name} cannot be decompressed"):
            opener = DECOMPRESSORS.get(pathlib.PurePosixPath(name).suffix)
            if opener and len(data) <= member_bytes:
                with opener(io.BytesIO(data)) as inner:
                    data = inner.read(member_bytes + 1)
        if len(data) > member_bytes:
            raise ValueError(f"source {source}: member {name} holds more than {member_bytes} bytes, the limit")
        left -= len(data)
        if left < 0:
            raise ValueError(f"source {source}: at member {name} the archive exceeds {total_bytes} bytes, the limit")
        yield name, data


def read_passages(archive: pathlib.Path, source: str, globs: Globs, reader: ReaderOptions, file: str) -> Iterator[Passage]:
    """The texts that `reader` finds in the wanted members of `archive`, which a study calls `file`.

    Raises:
        ValueError: as `members` and the reader do, or no member that matches.
    """
    read = reader.component().read
    empty = True
    for member, data in read_members(archive, source, globs):
        empty = False
        yield from read(reader, member, data, f"source {source}: member {member}")
    if empty:
        raise ValueError(
            f"source {source}: include: no member of {file} matches {', '.join(globs.include)} and no exclude"
        )


def extract_members(archive: pathlib.Path, source: str, globs: Globs, folder: pathlib.Path) -> None:
    """Copies the wanted members into `folder` under their last names, as they are; for files too large for memory.

    Raises:
        ValueError: hostile or damaged, two members of one last name, or none that is wanted; names the source.
    """
    if not archive.is_file():
        raise ValueError(f"source {source}: there is no archive {archive}")
    for name, stream in _open_members(archive, source, globs):
        target = folder / pathlib.PurePosixPath(name).name
        if target.exists():
            raise ValueError(f"source {source}: two members are called {target.name}")
        with _explain_damage(f"source {source}: member {name} is damaged or cut off"), target.open("wb") as file:
            shutil.copyfileobj(stream, file)
    if not any(folder.iterdir()):
        raise ValueError(f"source {source}: include: no member matches {', '.join(globs.include)} and no exclude")


def decode_utf8(data: bytes, where: str) -> str:
    """`data` as text. Raises ValueError with `where` and the byte's offset if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}") from None


def _open_members(archive: pathlib.Path, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    with (
        _explain_damage(f"source {source}: the archive is damaged, cut off, or neither zip nor tar"),
        archive.open("rb") as file,
    ):
        start = file.read(len(deb.MAGIC))
        file.seek(0)
        if start == deb.MAGIC:
            with deb.open_data_tar(file) as data, tarfile.open(fileobj=data, mode="r|*") as opened:
                yield from _open_tar_members(opened, source, globs)
        elif start.startswith(b"PK"):
            yield from _open_zip_members(archive, source, globs)
        else:
            with tarfile.open(fileobj=file, mode="r:*") as opened:
                yield from _open_tar_members(opened, source, globs)


def _open_zip_members(archive: pathlib.Path, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        seen: set[str] = set()
        for info in opened.infolist():
            _check_name(info.orig_filename, source, seen)
            if info.is_dir() or not globs.match(info.filename):
                continue
            if info.flag_bits & ENCRYPTED_FLAG:
                raise ValueError(f"source {source}: member {info.filename} is encrypted")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ValueError(f"source {source}: member {info.filename} is a link, not a file")
            with _explain_damage(f"source {source}: member {info.filename} is damaged or cut off"):
                stream = opened.open(info)
            with stream:
                yield info.filename, stream


def _open_tar_members(opened: tarfile.TarFile, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    seen: set[str] = set()
    for info in opened:
        name = info.name.removeprefix("./")  # as every name in a Debian package begins
        _check_name(name, source, seen)
        if info.isdir() or not globs.match(name):
            continue
        stream = opened.extractfile(info) if info.isreg() else None
        if stream is None:
            raise ValueError(f"source {source}: member {name} is a link or a device, not a file")
        yield name, stream


def _check_name(name: str, source: str, seen: set[str]) -> None:
    """Raises ValueError for a name that leaves the archive's folder, or that another member has; adds it to `seen`."""
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or DRIVE_LETTER.match(name):
        raise ValueError(f"source {source}: member {name!r} escapes the archive's folder")
    if name in seen:
        raise ValueError(f"source {source}: two members are called {name}")
    seen.add(name)


@contextlib.contextmanager
def _explain_damage(message: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE_ERRORS as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)  # tarfile lists all that it tried
        raise ValueError(f"{message}: {said.removesuffix(':')}") from None
    except OSError as error:
        if error.errno is not None:  # the file system's own trouble; bz2 reports bad data without a number
            raise
        raise ValueError(f"{message}: {error}") from None
