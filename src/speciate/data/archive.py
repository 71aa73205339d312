"""Reads the members of a zip or tar archive into memory, one at a time, without extracting or installing anything.

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
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

MEMBER_BYTES = 128 << 20
"""Largest member, decompressed."""
TOTAL_BYTES = 2 << 30
"""Most that one archive may give, decompressed."""

DRIVE = re.compile(r"[A-Za-z]:")
BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    NotImplementedError,  # zipfile: a compression it does not know
    RuntimeError,  # zipfile: an encrypted member
)
COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Globs:
    """Which members to read: `*` also matches `/`."""

    include: Sequence[str]
    exclude: Sequence[str] = ()

    def match(self, name: str) -> bool:
        """Whether a member of this name is wanted."""
        wanted = any(fnmatch.fnmatchcase(name, glob) for glob in self.include)
        return wanted and not any(fnmatch.fnmatchcase(name, glob) for glob in self.exclude)


def members(
    archive: pathlib.Path,
    source: str,
    globs: Globs,
    member_bytes: int = MEMBER_BYTES,
    total_bytes: int = TOTAL_BYTES,
) -> Iterator[tuple[str, bytes]]:
    """The wanted members of `archive` as (name, bytes), in the archive's order.

    A member that is itself compressed (.gz, .bz2, .xz) comes decompressed, under the same limits.

    Args:
        archive: a zip (a wheel is one) or a tar, compressed or not, told apart by content.
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
    for name, stream in _streams(archive, source, globs):
        with _broken(f"source {source}: member {name} is damaged or cut off"):
            data = stream.read(member_bytes + 1)
        with _broken(f"source {source}: member {name} cannot be decompressed"):
            opener = COMPRESSED.get(pathlib.PurePosixPath(name).suffix)
            if opener and len(data) <= member_bytes:
                with opener(io.BytesIO(data)) as inner:
                    data = inner.read(member_bytes + 1)
        if len(data) > member_bytes:
            raise ValueError(f"source {source}: member {name} holds more than {member_bytes} bytes, the limit")
        left -= len(data)
        if left < 0:
            raise ValueError(f"source {source}: at member {name} the archive exceeds {total_bytes} bytes, the limit")
        yield name, data


def utf8(data: bytes, where: str) -> str:
    """`data` as text. Raises ValueError with `where` and the byte's offset if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}") from None


def _streams(archive: pathlib.Path, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    with _broken(f"source {source}: the archive is damaged, cut off, or neither zip nor tar"):
        with archive.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        yield from (_zip_streams if is_zip else _tar_streams)(archive, source, globs)


def _zip_streams(archive: pathlib.Path, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        seen: set[str] = set()
        for info in opened.infolist():
            _check_name(info.orig_filename, source, seen)
            if info.is_dir() or not globs.match(info.filename):
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ValueError(f"source {source}: member {info.filename} is a link, not a file")
            with _broken(f"source {source}: member {info.filename} is damaged or cut off"):
                stream = opened.open(info)
            with stream:
                yield info.filename, stream


def _tar_streams(archive: pathlib.Path, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive, "r:*") as opened:
        seen: set[str] = set()
        for info in opened:
            _check_name(info.name, source, seen)
            if info.isdir() or not globs.match(info.name):
                continue
            stream = opened.extractfile(info) if info.isreg() else None
            if stream is None:
                raise ValueError(f"source {source}: member {info.name} is a link or a device, not a file")
            yield info.name, stream


def _check_name(name: str, source: str, seen: set[str]) -> None:
    """Raises ValueError for a name that leaves the archive's folder, or that another member has; adds it to `seen`."""
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or DRIVE.match(name):
        raise ValueError(f"source {source}: member {name!r} escapes the archive's folder")
    if name in seen:
        raise ValueError(f"source {source}: two members are called {name}")
    seen.add(name)


@contextlib.contextmanager
def _broken(message: str) -> Iterator[None]:
    try:
        yield
    except BROKEN as error:
        raise ValueError(f"{message}: {error or type(error).__name__}") from None
    except OSError as error:
        if error.errno is not None:  # the file system's own trouble; bz2 reports bad data without a number
            raise
        raise ValueError(f"{message}: {error}") from None
