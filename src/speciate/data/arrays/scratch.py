"""Anonymous arrays on disk, with which a stage sorts rows that do not fit into memory.

The files lie in the folder for temporary files (TMPDIR) and disappear with the process, however it ends. They are read
and written through file handles, not mapped, because the pages of a mapping would count as the process's memory.

To sort rows, put each into the partition of its key, then read and sort the partitions one by one. A partition has
about `PARTITION_ROWS` rows, unless one key has many more or `MAX_PARTITIONS` are too few.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK_ROWS = 1 << 14
"""Number of rows that are processed at a time."""
PARTITION_ROWS = 1 << 17
"""Number of rows that are sorted at a time."""
MAX_PARTITIONS = 256
"""Number of files that may be open at a time."""
Rows = npt.NDArray[Any]


class ScratchArray:
    """An array on disk that is appended to and read back."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._handle = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the file lives as long as this object)

    def __del__(self) -> None:
        self._handle.close()

    def __len__(self) -> int:
        return self.length

    def append(self, rows: Rows) -> None:
        """Append `rows`, which must have the array's dtype. Raises OSError naming the folder if the disk is full."""
        assert rows.dtype == self.dtype, (rows.dtype, self.dtype)
        remaining = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data if len(rows) else memoryview(b"")
        try:
            self._handle.seek(0, 2)
            while remaining:
                remaining = remaining[self._handle.write(remaining) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None
        self.length += len(rows)

    def read(self, start: int = 0, stop: int | None = None) -> Rows:
        """Read the rows from `start` up to `stop`, or fewer if the array ends before."""
        count = max(0, min(self.length if stop is None else stop, self.length) - start)
        self._handle.seek(start * self.dtype.itemsize)
        return np.fromfile(self._handle, self.dtype, count)

    def chunks(self, size: int = CHUNK_ROWS) -> Iterator[Rows]:
        """Yield all rows, `size` at a time."""
        for start in range(0, self.length, size):
            yield self.read(start, start + size)

    def memory_map(self, shape: tuple[int, ...]) -> Rows:
        """Return the whole array in `shape`, memory-mapped: read from disk on access (see `npy.release_pages`)."""
        if not self.length:
            return np.zeros(shape, self.dtype)
        return np.asarray(np.memmap(self._handle, self.dtype, "r", shape=shape))


class Partitions:
    """Rows on disk, divided into partitions; each keeps the order in which its rows were added."""

    def __init__(self, count: int, dtype: npt.DTypeLike) -> None:
        """Prepare for `count` rows in total."""
        num_partitions = max(1, min(MAX_PARTITIONS, -(-count // PARTITION_ROWS)))
        self.bits = (num_partitions - 1).bit_length()
        self.dtype = np.dtype(dtype)
        self._partitions = [ScratchArray(dtype) for _ in range(1 << self.bits)]

    def __len__(self) -> int:
        return len(self._partitions)

    def add(self, partition_N: npt.NDArray[np.integer[Any]], rows_N: Rows) -> None:
        """Append each row to its partition."""
        if len(self) == 1:
            self._partitions[0].append(rows_N)
            return
        order = np.argsort(partition_N, kind="stable")
        edges = np.searchsorted(partition_N[order], np.arange(len(self) + 1))
        for index in np.flatnonzero(np.diff(edges)).tolist():
            self._partitions[index].append(rows_N[order[edges[index] : edges[index + 1]]])

    def partitions_by_hash(self, hashes_N: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the partition of each hash; each partition holds a range of hashes, in ascending order."""
        return (hashes_N >> np.uint64(64 - self.bits)).astype(np.int64) if self.bits else np.zeros(len(hashes_N), int)

    def partitions_by_number(self, numbers_N: npt.NDArray[np.integer[Any]], count: int) -> npt.NDArray[np.int64]:
        """Return the partition of each of the numbers 0 .. count-1, by ranges in ascending order."""
        return (numbers_N // max(1, -(-count // len(self)))).astype(np.int64)

    def __iter__(self) -> Iterator[Rows]:
        """Read the partitions one after the other."""
        return (partition.read() for partition in self._partitions)
