"""The .npy files between stages: written without knowing their length, read without loading them."""

import pathlib
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt


def read_array(file: pathlib.Path) -> npt.NDArray[Any]:
    """The array in `file`, memory-mapped. Raises ValueError naming the file where it is cut off or no .npy file."""
    try:
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file}: is cut off, or no array: {error}") from None
    return array


class GrowingArray:
    """A 1-D .npy file (format version 1.0) that is appended to, so that a stage's memory does not grow with its input.

    numpy pads the header so that the length can be rewritten in place (`GROWTH_AXIS_MAX_DIGITS`), which is done on
    leaving the block.
    """

    def __init__(self, file: pathlib.Path, dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self.length = 0
        self._handle = file.open("w+b")
        self._header()

    def append(self, values: npt.NDArray[np.generic]) -> None:
        """Adds `values` (n,), which must have the array's own dtype."""
        assert values.dtype == self.dtype, (values.dtype, self.dtype)
        assert values.ndim == 1, values.shape
        self._handle.write(np.ascontiguousarray(values).data)
        self.length += len(values)

    def _header(self) -> None:
        self._handle.seek(0)
        shape = {"shape": (self.length,), "fortran_order": False, "descr": self.dtype.str}
        np.lib.format.write_array_header_1_0(self._handle, shape)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            size = self._handle.tell()
            self._header()
            assert self._handle.tell() == size - self.length * self.dtype.itemsize, "the header outgrew its padding"
        self._handle.close()
