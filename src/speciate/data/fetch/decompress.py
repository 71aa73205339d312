"""Open compressed files as streams: gzip, zstd, bzip2 and xz, in bounded memory.

A file may hold several streams one after another, zeros behind them (as tapes and padded objects have), and, in zstd,
frames to skip. Whatever else follows a stream, a file that ends inside one, and a file without any are errors: Python's
own readers of bz2 and xz end silently where a second stream is damaged, and zstandard's where a file is cut off.
"""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import IO, Any

from speciate.data.reading_errors import ReadingError

CHUNK_BYTES = 1 << 16
MAX_ZSTD_WINDOW = 1 << 31
"""Largest window of a zstd frame, `zstd --long=31`; memory grows with what is read, up to the window."""
ZSTD_MAGIC = 0xFD2FB528
SKIPPABLE_MAGIC = 0x184D2A50
"""The first of 16 magic numbers of zstd frames that hold no data."""


def open_compressed(file: IO[bytes], suffix: str, where: str) -> IO[bytes]:
    """Open `file`, positioned at its start, as the stream that a name with `suffix` promises.

    Args:
        file: the compressed bytes.
        suffix: a key of `COMPRESSIONS`.
        where: what `file` is, for messages.

    Raises:
        ReadingError: the file needs more than this reader has, such as a dictionary; the message names `where`.
        Exception: while it is read, what a library says of damage: see `reading_errors.explain_errors`.
    """
    start = file.read(1)
    if not start:
        raise EOFError("it is empty, and not even a compressed file of no bytes is")
    return COMPRESSIONS[suffix](_Rewound(start, file), where)


def open_by_magic(file: IO[bytes], where: str) -> IO[bytes]:
    """Open `file` as its first bytes tell: decompressed, or as it is."""
    start = file.read(max(map(len, MAGICS)))
    suffix = next((suffix for magic, suffix in MAGICS.items() if start.startswith(magic)), None)
    rewound = _Rewound(start, file)
    return io.BufferedReader(rewound, CHUNK_BYTES) if suffix is None else COMPRESSIONS[suffix](rewound, where)


class _Rewound(io.RawIOBase):
    """The bytes that were read from a file's start already, and then the rest of the file."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._start[: len(buffer)] or self._file.read(len(buffer))
        self._start = self._start[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _Streams(io.RawIOBase):
    """The streams of a bz2 or xz file one after another, with zeros allowed behind each."""

    def __init__(self, file: _Rewound, new: Callable[[], Any]) -> None:
        self._file, self._new, self._stream = file, new, new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._stream.eof and not self._next_stream():
                return 0
            compressed = self._file.read(CHUNK_BYTES) if self._stream.needs_input else b""
            if self._stream.needs_input and not compressed:
                raise EOFError("it ends inside a compressed stream")
            data = self._stream.decompress(compressed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bool:
        """Open the stream behind the one that has ended; return whether there is one."""
        rest = self._stream.unused_data.lstrip(b"\0")
        while not rest and (read := self._file.read(CHUNK_BYTES)):
            rest = read.lstrip(b"\0")
        if not rest:
            return False
        self._file, self._stream = _Rewound(rest, self._file), self._new()  # type: ignore[arg-type]
        return True


class _ZstdFrames:
    """The bytes of a zstd file on their way to the library, which does not notice that a frame is cut off.

    Follows the headers of frames and blocks (RFC 8878, section 3.1) and refuses to end inside a frame.
    """

    def __init__(self, file: _Rewound, where: str) -> None:
        self._file, self._where = file, where
        self._skip, self._held = 0, b""
        self._start_frame()

    def read(self, size: int) -> bytes:
        """Return the next bytes of frames, without the zeros behind them; nothing at the file's end."""
        while True:
            data: bytes = self._file.read(size) or b""
            if not data and (self._skip or self._take != self._frame or self._held.strip(b"\0")):
                raise EOFError("it ends inside a compressed frame")
            if (frames := self._follow(data)) or not data:
                return frames

    def _follow(self, data: bytes) -> bytes:
        """Follow the headers in `data`; return it without what may yet turn out to be zeros behind a frame."""
        frames, position = bytearray(), 0
        while position < len(data):
            wanted = self._skip or self._want - len(self._held)
            part = data[position : position + wanted]
            position += len(part)
            if self._skip:
                self._skip -= len(part)
                frames += part
                continue
            in_magic = self._take == self._frame
            self._held += part
            frames += b"" if in_magic else part
            if len(self._held) == self._want:
                held, self._held = self._held, b""
                self._take(held)
                frames += held if in_magic and any(held) else b""
        return bytes(frames)

    def _start_frame(self) -> None:
        self._want = 4
        self._take: Callable[[bytes], None] = self._frame

    def _frame(self, magic: bytes) -> None:
        number = int.from_bytes(magic, "little")
        if number & ~0xF == SKIPPABLE_MAGIC:
            self._want, self._take = 4, self._skippable
        elif number == ZSTD_MAGIC:
            self._want, self._take = 1, self._descriptor
        elif any(magic):
            raise ReadingError(f"{self._where} is damaged or cut off: {magic!r} does not start a zstd frame")

    def _skippable(self, size: bytes) -> None:
        self._skip = int.from_bytes(size, "little")
        self._start_frame()

    def _descriptor(self, descriptor: bytes) -> None:
        flags = descriptor[0]
        self._single_segment, self._checksum_bytes = bool(flags & 0x20), 4 if flags & 0x4 else 0
        self._dictionary_bytes = (0, 1, 2, 4)[flags & 3]
        size_bytes = (1 if self._single_segment else 0, 2, 4, 8)[flags >> 6]
        self._want = (not self._single_segment) + self._dictionary_bytes + size_bytes
        self._take = self._header

    def _header(self, header: bytes) -> None:
        window_bytes = int(not self._single_segment)
        if window_bytes:
            base = 1 << (10 + (header[0] >> 3))
            window = base + base // 8 * (header[0] & 7)
        else:
            field = header[self._dictionary_bytes :]
            window = int.from_bytes(field, "little") + (256 if len(field) == 2 else 0)
        if window > MAX_ZSTD_WINDOW:
            raise ReadingError(
                f"{self._where} has a zstd frame with a window of {window} bytes; the limit is {MAX_ZSTD_WINDOW}: "
                "compress it again with `zstd --long=31` or less"
            )
        if any(header[window_bytes : window_bytes + self._dictionary_bytes]):
            raise ReadingError(
                f"{self._where} was compressed with a dictionary, which is not in it; compress it again without one"
            )
        self._want, self._take = 3, self._block

    def _block(self, header: bytes) -> None:
        bits = int.from_bytes(header, "little")
        is_last, kind, size = bits & 1, bits >> 1 & 3, bits >> 3
        self._skip = 1 if kind == 1 else size  # one byte that is repeated, or the block's own bytes
        if is_last:
            self._skip += self._checksum_bytes
            self._start_frame()


def _open_zstd(file: _Rewound, where: str) -> IO[bytes]:
    import zstandard

    frames: Any = _ZstdFrames(file, where)
    reader = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).stream_reader(frames, read_across_frames=True)
    return io.BufferedReader(reader, CHUNK_BYTES)


COMPRESSIONS: dict[str, Callable[[_Rewound, str], IO[bytes]]] = {
    ".gz": lambda file, where: io.BufferedReader(gzip.GzipFile(fileobj=io.BufferedReader(file)), CHUNK_BYTES),
    ".zst": _open_zstd,
    ".bz2": lambda file, where: io.BufferedReader(_Streams(file, bz2.BZ2Decompressor), CHUNK_BYTES),
    ".xz": lambda file, where: io.BufferedReader(_Streams(file, lzma.LZMADecompressor), CHUNK_BYTES),
}
"""Suffix -> the function that opens such a file."""
MAGICS = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    **{bytes([first, 0x2A, 0x4D, 0x18]): ".zst" for first in range(0x50, 0x60)},
    b"BZh": ".bz2",
    b"\xfd7zXZ\0": ".xz",
    b"\x5d\0\0": ".xz",  # the format before it, which the same library reads
}
"""First bytes of a file -> the suffix that it should have."""
