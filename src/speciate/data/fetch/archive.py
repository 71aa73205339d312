"""Read the members of a zip, tar or Debian archive one at a time, without extracting or installing the archive.

An archive comes from a stranger. A name that leaves the archive's folder, a link in place of a text, a member that
expands beyond its limit, and a damaged or truncated file each end the stage, with a message that names the source and
the member.
"""

import fnmatch
import io
import pathlib
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch import deb
from speciate.data.fetch.decompress import COMPRESSIONS, open_by_magic, open_compressed
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError, explain_errors

MAX_MEMBER_BYTES = 128 << 20
"""Largest size of one member, decompressed."""
MAX_TOTAL_BYTES = 2 << 30
"""Largest size of all members of one archive together, decompressed."""

DRIVE_LETTER = re.compile(r"[A-Za-z]:")
ENCRYPTED_FLAG = 0x1
"""The bit of a zip member's flags that marks it as encrypted."""
ZIP_METHODS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "lzma",
}
"""How a member of a zip may be compressed."""
ZIP_END = b"PK\5\6"
MAX_ZIP_END_BYTES = 22 + (1 << 16)
"""Most bytes of the record at a zip's end, which holds a comment."""
TAR_BLOCK_BYTES = 512


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

    A member that is itself compressed (.gz, .bz2, .xz, .zst) is decompressed, under the same limits.

    Args:
        archive: a zip (a wheel is one), a tar, compressed or not, or a Debian package; its content tells which.
        source: the source's name in the study, for messages.
        globs: the members wanted.
        member_bytes: largest size of one member, decompressed.
        total_bytes: largest size of all members together.

    Raises:
        ReadingError: the archive is hostile, damaged or too large; the message names the source and the member.
    """
    if not archive.is_file():
        raise ReadingError(f"source {source}: there is no archive {archive}")
    bytes_left = total_bytes
    for name, stream in _open_members(archive, source, globs):
        where = f"source {source}: member {_shown(name)}"
        with explain_errors(where):
            data = stream.read(member_bytes + 1)
        suffix = pathlib.PurePosixPath(name).suffix
        if suffix in COMPRESSIONS and len(data) <= member_bytes:
            with explain_errors(where, "cannot be decompressed"):
                data = open_compressed(io.BytesIO(data), suffix, where).read(member_bytes + 1)
        if len(data) > member_bytes:
            raise ReadingError(f"{where} holds more than {member_bytes} bytes, the limit")
        bytes_left -= len(data)
        if bytes_left < 0:
            raise ReadingError(
                f"source {source}: at member {_shown(name)} the archive exceeds {total_bytes} bytes, the limit"
            )
        yield name, data


def read_passages(
    archive: pathlib.Path, source: str, globs: Globs, reader: ReaderOptions, *, file: str
) -> Iterator[Passage]:
    """Yield the texts that `reader` extracts from the wanted members of `archive`, which the study calls `file`.

    Raises:
        ReadingError: as `read_members` and the reader do, or no member matches.
    """
    read = reader.component().read
    no_match = True
    for member, data in read_members(archive, source, globs):
        no_match = False
        yield from read(reader, member, data, f"source {source}: member {_shown(member)}")
    if no_match:
        raise ReadingError(
            f"source {source}: include: no member of {file} matches {', '.join(globs.include)} and no exclude"
        )


def extract_members(archive: pathlib.Path, source: str, globs: Globs, folder: pathlib.Path) -> None:
    """Copy the wanted members unchanged into `folder`, under their base names; for files too large for memory.

    Raises:
        ReadingError: the archive is hostile or damaged, two members share a base name, or none is wanted; the message
            names the source.
    """
    if not archive.is_file():
        raise ReadingError(f"source {source}: there is no archive {archive}")
    for name, stream in _open_members(archive, source, globs):
        target = folder / pathlib.PurePosixPath(name).name
        if target.exists():
            raise ReadingError(f"source {source}: two members are called {_shown(target.name)}")
        with explain_errors(f"source {source}: member {_shown(name)}"), target.open("wb") as file:
            shutil.copyfileobj(stream, file)
    if not any(folder.iterdir()):
        raise ReadingError(f"source {source}: include: no member matches {', '.join(globs.include)} and no exclude")


def _open_members(archive: pathlib.Path, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    where = f"source {source}: the archive"
    with explain_errors(where, "is damaged, cut off, or neither zip nor tar"), archive.open("rb") as file:
        start = file.read(len(deb.MAGIC))
        file.seek(0)
        if start == deb.MAGIC:
            yield from _open_tar_members(deb.open_data_tar(file), source, globs)
        elif start.startswith(b"PK"):
            yield from _open_zip_members(archive, source, globs)
        else:
            yield from _open_tar_members(file, source, globs)


def _open_zip_members(archive: pathlib.Path, source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        if (
            members and min(info.header_offset for info in members) > 0
        ):  # the list at its end does not begin at its start
            raise ReadingError(
                f"source {source}: the archive holds something before its first member: two joined to one?"
            )
        listed = _zip_count(archive)
        if listed not in (len(members) & 0xFFFF, 0xFFFF):  # beyond that, the number stands elsewhere
            raise zipfile.BadZipFile(f"it lists {listed} members, of which {len(members)} are found")
        seen: set[str] = set()
        for info in members:
            _check_name(info.orig_filename, source, seen)
            if info.is_dir() or not globs.match(info.filename):
                continue
            where = f"source {source}: member {_shown(info.filename)}"
            if info.flag_bits & ENCRYPTED_FLAG:
                raise ReadingError(f"{where} is encrypted")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise ReadingError(f"{where} is a link, not a file")
            if info.compress_type not in ZIP_METHODS:
                readable = ", ".join(ZIP_METHODS.values())
                raise ReadingError(f"{where} is compressed by zip's method {info.compress_type}; read are {readable}")
            with explain_errors(where):
                stream = opened.open(info)
            with stream:
                yield info.filename, stream


def _zip_count(archive: pathlib.Path) -> int:
    """Return how many members a zip says at its end that it has; zipfile does not count them."""
    with archive.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - MAX_ZIP_END_BYTES))
        end = file.read()
    start = end.rindex(ZIP_END) + 10
    return int.from_bytes(end[start : start + 2], "little")


class _TarInfo(tarfile.TarInfo):
    """A header of a tar; one that is damaged raises an error, where tarfile would take it for the archive's end."""

    @classmethod
    def fromtarfile(cls, opened: tarfile.TarFile) -> "_TarInfo":
        try:
            return super().fromtarfile(opened)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # a block of zeros, which ends the archive
                raise
            raise tarfile.ReadError(f"{error} at offset {opened.offset}") from error


def _open_tar_members(file: IO[bytes], source: str, globs: Globs) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the members of a tar, which may be compressed, as streams; it is read once from front to back."""
    stream = open_by_magic(file, f"source {source}: the archive")
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarInfo) as opened:
        for info in opened:
            name = info.name.removeprefix("./")  # every name in a Debian package begins so
            _check_name(name, source, seen)
            # bytes of a name that are not UTF-8 came as halves of surrogate pairs, which no id can hold
            name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            if info.isdir() or not globs.match(name):
                continue
            content = opened.extractfile(info) if info.isreg() else None
            if content is None:
                raise ReadingError(f"source {source}: member {_shown(name)} is a link or a device, not a file")
            yield name, content
        _check_end(opened, source)


def _check_end(opened: tarfile.TarFile, source: str) -> None:
    """Raise ReadingError if another tar follows the end of this one, as where two files were joined.

    The rest is read to its end, where the checksum of a compressed tar stands.
    """
    first = b""
    while block := opened.fileobj.read(TAR_BLOCK_BYTES):
        first = first or (block if any(block) else b"")
    try:
        tarfile.TarInfo.frombuf(first, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return  # what stands there is no member, so nothing is lost
    raise ReadingError(f"source {source}: the archive holds another one behind its end; divide the two")


def _check_name(name: str, source: str, seen: set[str]) -> None:
    """Raise ReadingError if a name leaves the archive's folder or is in `seen`; add it to `seen`."""
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/") or DRIVE_LETTER.match(name):
        raise ReadingError(f"source {source}: member {name!r} escapes the archive's folder")
    if name in seen:
        raise ReadingError(f"source {source}: two members are called {_shown(name)}")
    seen.add(name)


def _shown(name: str) -> str:
    """Return a member's name for a message, which is one line."""
    return name if name.isprintable() else repr(name)
