"""The .npy files between stages: written without knowing their length, read without loading them."""

import math
import mmap
import pathlib
import tokenize
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

WRITE_BYTES = 1 << 17
"""Elements that are written at a time."""


def read_array(file: pathlib.Path, dtype: npt.DTypeLike | None = None, ndim: int | None = None) -> npt.NDArray[Any]:
    """The array in `file`, memory-mapped.

    Args:
        file: a .npy file.
        dtype: what it must hold, given with `ndim`; None: anything.
        ndim: how many dimensions it must have; None: any number.

    Raises:
        ValueError: cut off, no .npy file, or another kind of array; names the file.
    """
    try:
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    except (ValueError, EOFError, SyntaxError, OverflowError, tokenize.TokenError) as error:  # the last: its header
        raise ValueError(f"{file}: is cut off, or no array: {' '.join(str(error).split())}") from None
    if not isinstance(array, np.ndarray):  # an archive of arrays
        raise ValueError(f"{file}: is cut off, or no array: {type(array).__name__}")
    if (dtype is not None and array.dtype != dtype) or (ndim is not None and array.ndim != ndim):
        wanted = f"{ndim}-dimensional {'' if dtype is None else np.dtype(dtype)}".strip()
        raise ValueError(f"{file}: holds {array.dtype} of shape {array.shape}, not {wanted}")
    return array


def release_pages(array: npt.NDArray[Any]) -> None:
    """Gives back the memory of a memory-mapped array's pages; what was written stays, and is read again when needed.

    Of a view the whole mapping's. Pages of files count as a process's memory, and looking at one brings in its
    neighbours: sixteen of them on Linux.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(array: npt.NDArray[Any], size: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Copies of so many rows of a memory-mapped array at a time, each with its first row's number; lets go of each."""
    for start in range(0, len(array), size):
        copy = np.array(array[start : start + size])
        release_pages(array)
        yield start, copy


def ranges(firsts_D: npt.NDArray[np.int64], counts_D: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """first, first + 1, ..., as many as its count, for each of D, end to end."""
    ends_D = np.cumsum(counts_D)
    total = int(ends_D[-1]) if len(ends_D) else 0
    indices: npt.NDArray[np.int64] = np.repeat(firsts_D - (ends_D - counts_D), counts_D)
    indices += np.arange(total)
    return indices


def distinct(rows_N2: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first index of each different row, (G,), in the order of their values, and each row's place there, (N,)."""
    order = np.lexsort((rows_N2[:, 1], rows_N2[:, 0]))  # stable: of equal rows the first comes first
    sorted_N2 = rows_N2[order]
    new = np.ones(len(order), bool)
    new[1:] = (sorted_N2[1:] != sorted_N2[:-1]).any(axis=1)
    places_N = np.empty(len(order), np.int64)
    places_N[order] = np.cumsum(new) - 1
    return order[new], places_N


class FixedArray:
    """A .npy file of a known shape, written piece by piece, so that memory holds a piece alone; a context manager."""

    def __init__(self, file: pathlib.Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self.dtype = np.dtype(dtype)
        self.missing = math.prod(shape)
        self._handle = file.open("w+b")
        header = {"shape": shape, "fortran_order": False, "descr": self.dtype.str}
        np.lib.format.write_array_header_1_0(self._handle, header)
        self._start = self._handle.tell()

    def put(self, offset: int, values: npt.NDArray[np.generic]) -> None:
        """Writes `values`, of the array's own dtype, from element `offset` on (in C order)."""
        assert values.dtype == self.dtype, (values.dtype, self.dtype)
        self._handle.seek(self._start + offset * self.dtype.itemsize)
        self._handle.write(np.ascontiguousarray(values).data)
        self.missing -= values.size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._handle.close()
        assert kind is not None or not self.missing, f"{self.missing} elements were never written"


def write_array(file: pathlib.Path, array: npt.NDArray[Any]) -> None:
    """Writes a .npy file, a memory-mapped array portion by portion."""
    row = math.prod(array.shape[1:])
    with FixedArray(file, array.dtype, array.shape) as fixed:
        for start, rows in chunks(array, max(1, WRITE_BYTES // max(1, row))):
            fixed.put(start * row, rows)


class GrowingArray:
    """A .npy file (format version 1.0) that is appended to, so that a stage's memory does not grow with its input.

    Of one dimension, or of rows of a `width`.

    numpy pads the header so that the length can be rewritten in place (`GROWTH_AXIS_MAX_DIGITS`), which is done on
    leaving the block.
    """

    def __init__(self, file: pathlib.Path, dtype: npt.DTypeLike, *width: int) -> None:
        self.dtype = np.dtype(dtype)
        self.width = width
        self.length = 0
        self._handle = file.open("w+b")
        self._header()

    def append(self, values: npt.NDArray[np.generic]) -> None:
        """Adds `values` (n,) or (n, width), which must have the array's own dtype."""
        assert values.dtype == self.dtype, (values.dtype, self.dtype)
        assert values.shape[1:] == self.width, values.shape
        self._handle.write(np.ascontiguousarray(values).data)
        self.length += len(values)

    def _header(self) -> None:
        self._handle.seek(0)
        shape = {"shape": (self.length, *self.width), "fortran_order": False, "descr": self.dtype.str}
        np.lib.format.write_array_header_1_0(self._handle, shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            size = self._handle.tell()
            self._header()
            assert self._handle.tell() == size - self.length * math.prod(self.width) * self.dtype.itemsize, (
                "the header outgrew its padding"
            )
        self._handle.close()
