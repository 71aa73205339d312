"""Read the members of a zip, tar or Debian archive one at a time, without extracting or installing the archive.

An archive comes from a stranger. A name that leaves the archive's folder, a link in place of a text, a member that
expands beyond its limit, and a damaged or truncated file each end the stage, with a message that names the source and
the member.
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
"""Largest size of one member, decompressed."""
MAX_TOTAL_BYTES = 2 << 30
"""Largest size of all members of one archive together, decompressed."""

DRIVE_LETTER = re.compile(r"[A-Za-z]:")
ENCRYPTED_FLAG = 0x1
"""The bit of a zip member's flags that marks it as encrypted."""
DAMAGE_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    NotImplementedError,  # zipfile raises it for an unknown compression
)
DECOMPRESSORS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Globs:
    """Which members to read. `*` also matches `/`."""

    include: Sequence[str]
    exclude: Sequence[str] = ()

    def match(self, name: str) -> bool:
        """Tell whether the member `name` is included and not excluded."""
        wanted = any(fnmatch.fnmatchcase(name, glob) for glob in self.include)
        return wanted and not any(fnmatch.fnmatchcase(name, glob) for glob in self.exclude)


def read_members(
    archive: pathlib.Path,
    source: str,
    globs: Globs,
    member_bytes: int = MAX_MEMBER_BYTES,
    *,
    total_bytes: int = MAX_TOTAL_BYTES,
) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted members of `archive` as (name, bytes), in the archive's order.

    A member that is itself compressed (.gz, .bz2, .xz) is decompressed, under the same limits.

    Args:
        archive: a zip (a wheel is one), a tar, compressed or not, or a Debian package; its content tells which.
        source: the source's name in the study, for messages.
        globs: the members wanted.
        member_bytes: largest size of one member, decompressed.
        total_bytes: largest size of all members together.

    Raises:
        ValueError: the archive is hostile, damaged or too large; the message names the source and the member.
    """
    if not archive.is_file():
        raise ValueError(f"source {source}: there is no archive {archive}")
    bytes_left = total_bytes
    for name, stream in _open_members(archive, source, globs):
        with _explain_damage(f"source {source}: member {name} is damaged or cut off"):
            data = stream.read(member_bytes + 1)
        with _explain_damage(f"source {source}: member {name} cannot be decompressed"):
            opener = DECOMPRESSORS.get(pathlib.PurePosixPath(name).suffix)
            if opener and len(data) <= member_bytes:
                with opener(io.BytesIO(data)) as decompressed:
                    data = decompressed.read(member_bytes + 1)
        if len(data) > member_bytes:
            raise ValueError(f"source {source}: member {name} holds more than {member_bytes} bytes, the limit")
        bytes_left -= len(data)
        if bytes_left < 0:
            raise ValueError(f"source {source}: at member {name} the archive exceeds {total_bytes} bytes, the limit")
        yield name, data


def read_passages(
    archive: pathlib.Path, source: str, globs: Globs, reader: ReaderOptions, *, file: str
) -> Iterator[Passage]:
    """Yield the texts that `reader` extracts from the wanted members of `archive`, which the study calls `file`.

    Raises:
        ValueError: as `read_members` and the reader do, or no member matches.
    """
    read = reader.component().read
    no_match = True
    for member, data in read_members(archive, source, globs):
        no_match = False
        yield from read(reader, member, data, f"source {source}: member {member}")
    if no_match:
        raise ValueError(
            f"source {source}: include: no member of {file} matches {', '.join(globs.include)} and no exclude"
        )


def extract_members(archive: pathlib.Path, source: str, globs: Globs, folder: pathlib.Path) -> None:
    """Copy the wanted members unchanged into `folder`, under their base names; for files too large for memory.

    Raises:
        ValueError: the archive is hostile or damaged, two members share a base name, or none is wanted; the message
            names the source.
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
    """Decode `data` as UTF-8. Raise ValueError with `where` and the byte's offset if it is not UTF-8."""
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
        name = info.name.removeprefix("./")  # every name in a Debian package begins so
        _check_name(name, source, seen)
        if info.isdir() or not globs.match(name):
            continue
        stream = opened.extractfile(info) if info.isreg() else None
        if stream is None:
            raise ValueError(f"source {source}: member {name} is a link or a device, not a file")
        yield name, stream


def _check_name(name: str, source: str, seen: set[str]) -> None:
    """Raise ValueError if a name leaves the archive's folder or is in `seen`; add it to `seen`."""
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
        reason = next(iter(str(error).splitlines()), type(error).__name__)  # tarfile lists every format that it tried
        raise ValueError(f"{message}: {reason.removesuffix(':')}") from None
    except OSError as error:
        if error.errno is not None:  # an error of the file system; bz2 reports bad data without a number
            raise
        raise ValueError(f"{message}: {error}") from None
