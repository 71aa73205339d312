"""Arrays on disk that have no name: what a stage sorts without holding it in memory.

Scratch files lie in the folder for temporary files (TMPDIR), are gone with the process however it ends, and are read
and written through handles, not mapped: pages of a mapping would count as memory.

What is sorted is parted first: every row goes to the part that its key belongs to, part after part is read and sorted
by itself. A part has about `PART` rows, as long as no key has many more and `MOST` parts do.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

PORTION = 1 << 14
"""Rows that are worked on at a time."""
PART = 1 << 17
"""Rows that are sorted at a time."""
MOST = 256
"""Files that are open at a time."""
Rows = npt.NDArray[Any]


def index_type(count: int) -> npt.DTypeLike:
    """The integers that `count` documents are numbered with: int32 as long as it holds them."""
    return np.int32 if count < 1 << 31 else np.int64


class Scratch:
    """Rows of one type, appended and read again."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._handle = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (it lives as long as this does)

    def __del__(self) -> None:
        self._handle.close()

    def __len__(self) -> int:
        return self.length

    def append(self, rows: Rows) -> None:
        """Adds `rows`, which must have the scratch's own type. Raises OSError naming the folder where it is full."""
        assert rows.dtype == self.dtype, (rows.dtype, self.dtype)
        left = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data if len(rows) else memoryview(b"")
        try:
            self._handle.seek(0, 2)
            while left:
                left = left[self._handle.write(left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None
        self.length += len(rows)

    def read(self, start: int = 0, stop: int | None = None) -> Rows:
        """The rows from `start` to before `stop`, fewer where there are none."""
        count = max(0, min(self.length if stop is None else stop, self.length) - start)
        self._handle.seek(start * self.dtype.itemsize)
        return np.fromfile(self._handle, self.dtype, count)

    def portions(self, size: int = PORTION) -> Iterator[Rows]:
        """All rows, so many at a time."""
        for start in range(0, self.length, size):
            yield self.read(start, start + size)

    def mapped(self, shape: tuple[int, ...]) -> Rows:
        """All of it as an array of `shape` that is read from the disk where it is looked at (`arrays.let_go`)."""
        if not self.length:
            return np.zeros(shape, self.dtype)
        return np.asarray(np.memmap(self._handle, self.dtype, "r", shape=shape))


class Parts:
    """Rows in parts, each in the order in which it was put."""

    def __init__(self, count: int, dtype: npt.DTypeLike) -> None:
        """For `count` rows in all."""
        wanted = max(1, min(MOST, -(-count // PART)))
        self.bits = (wanted - 1).bit_length()
        self.dtype = np.dtype(dtype)
        self._parts = [Scratch(dtype) for _ in range(1 << self.bits)]

    def __len__(self) -> int:
        return len(self._parts)

    def put(self, part_N: npt.NDArray[np.integer[Any]], rows_N: Rows) -> None:
        """Adds each row to its part."""
        if len(self) == 1:
            self._parts[0].append(rows_N)
            return
        order = np.argsort(part_N, kind="stable")
        edges = np.searchsorted(part_N[order], np.arange(len(self) + 1))
        for part in np.flatnonzero(np.diff(edges)).tolist():
            self._parts[part].append(rows_N[order[edges[part] : edges[part + 1]]])

    def by_hash(self, hashes_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The part of each hash: a part has all hashes of a range, later parts larger ones."""
        return (hashes_N >> np.uint64(64 - self.bits)).astype(np.int64) if self.bits else np.zeros(len(hashes_N), int)

    def by_number(self, numbers_N: npt.NDArray[np.integer[Any]], count: int) -> npt.NDArray[np.int64]:
        """The part of each of the numbers 0 .. count-1, by ranges like `by_hash`."""
        return (numbers_N // max(1, -(-count // len(self)))).astype(np.int64)

    def __iter__(self) -> Iterator[Rows]:
        """Part after part."""
        return (part.read() for part in self._parts)
