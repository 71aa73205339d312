"""Open the tar of files (data.tar.*) inside a Debian package, an ar archive (deb(5)), as a stream."""

import io
from typing import IO

MAGIC = b"!<arch>\n"
HEADER_BYTES = 60
"""Size of an ar header: name 16, time 12, owner 6, group 6, mode 8, size 10, and two bytes that end it."""
HEADER_END = b"`\n"


def open_data_tar(file: IO[bytes]) -> IO[bytes]:
    """Return the data tar of the package in `file` as a stream, still compressed.

    Raises:
        EOFError: the package is damaged or truncated, or holds no data tar.
    """
    file.seek(len(MAGIC))
    while header := file.read(HEADER_BYTES):
        size = header[48:58].strip()
        if len(header) < HEADER_BYTES or header[58:] != HEADER_END or not size.isdigit():
            raise EOFError(f"a header of the package is damaged at offset {file.tell() - len(header)}")
        name = header[:16].decode("latin-1").strip().rstrip("/")
        if name.startswith("data.tar"):
            return io.BufferedReader(_FileSlice(file, file.tell(), int(size)))
        file.seek(int(size) + int(size) % 2, io.SEEK_CUR)
    raise EOFError("the package holds no data.tar")


class _FileSlice(io.RawIOBase):
    """A slice of `size` bytes of a file from `offset` on, read once from front to back."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file, self._left = file, size
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        if self._left and not data:
            raise EOFError("the package is cut off")
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)
