"""Write .npy files piece by piece, without holding the whole array in memory."""

import math
import pathlib
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.npy import chunks

WRITE_ELEMENTS = 1 << 17
"""Number of elements that are copied and written at a time."""


class FixedArray:
    """A .npy file of a known shape that is written piece by piece in any order; use it as a context manager.

    Memory holds one piece at a time.
    """

    def __init__(self, file: pathlib.Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self.dtype = np.dtype(dtype)
        self.missing = math.prod(shape)
        self._handle = file.open("w+b")
        header = {"shape": shape, "fortran_order": False, "descr": self.dtype.str}
        np.lib.format.write_array_header_1_0(self._handle, header)
        self._start = self._handle.tell()

    def put(self, offset: int, values: npt.NDArray[np.generic]) -> None:
        """Write `values`, which must have the array's dtype, from element `offset` on (in C order)."""
        assert values.dtype == self.dtype, (values.dtype, self.dtype)
        self._handle.seek(self._start + offset * self.dtype.itemsize)
        self._handle.write(np.ascontiguousarray(values).data)
        self.missing -= values.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
        assert kind is not None or not self.missing, f"{self.missing} elements were never written"


def write_array(file: pathlib.Path, array: npt.NDArray[Any]) -> None:
    """Write `array` to a .npy file, chunk by chunk."""
    row = math.prod(array.shape[1:])
    with FixedArray(file, array.dtype, array.shape) as fixed:
        for start, rows in chunks(array, max(1, WRITE_ELEMENTS // max(1, row))):
            fixed.put(start * row, rows)


class GrowingArray:
    """A .npy file (format version 1.0) that grows by appending, so a stage's memory does not grow with its input.

    The array has one dimension, or rows of a fixed `width`. numpy pads the header so that the length can be rewritten
    in place (`GROWTH_AXIS_MAX_DIGITS`). That happens when the `with` block ends.
    """

    def __init__(self, file: pathlib.Path, dtype: npt.DTypeLike, *width: int) -> None:
        self.dtype = np.dtype(dtype)
        self.width = width
        self.length = 0
        self._handle = file.open("w+b")
        self._write_header()

    def append(self, values: npt.NDArray[np.generic]) -> None:
        """Append `values` (n,) or (n, width), which must have the array's dtype."""
        assert values.dtype == self.dtype, (values.dtype, self.dtype)
        assert values.shape[1:] == self.width, values.shape
        self._handle.write(np.ascontiguousarray(values).data)
        self.length += len(values)

    def _write_header(self) -> None:
        self._handle.seek(0)
        header = {"shape": (self.length, *self.width), "fortran_order": False, "descr": self.dtype.str}
        np.lib.format.write_array_header_1_0(self._handle, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            size = self._handle.tell()
            self._write_header()
            assert self._handle.tell() == size - self.length * math.prod(self.width) * self.dtype.itemsize, (
                "the header outgrew its padding"
            )
        self._handle.close()
