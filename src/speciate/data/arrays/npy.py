"""Read the .npy files between stages without loading them into memory."""

import mmap
import pathlib
import tokenize
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


def read_array(file: pathlib.Path, dtype: npt.DTypeLike | None = None, ndim: int | None = None) -> npt.NDArray[Any]:
    """Open the array in `file`, memory-mapped.

    Args:
        file: a .npy file.
        dtype: the type that the array must have, given together with `ndim`; None accepts any.
        ndim: the number of dimensions that the array must have; None accepts any.

    Raises:
        ValueError: the file is truncated, is not a .npy file or holds another kind of array; names the file.
    """
    try:
        array: npt.NDArray[Any] = np.load(file, mmap_mode="r")
    except (
        ValueError,
        EOFError,
        SyntaxError,
        OverflowError,
        tokenize.TokenError,
    ) as error:  # TokenError comes from a broken header
        raise ValueError(f"{file}: is truncated or not an array: {' '.join(str(error).split())}") from None
    if not isinstance(array, np.ndarray):  # np.load also opens archives of arrays
        raise ValueError(f"{file}: is truncated or not an array: {type(array).__name__}")
    if (dtype is not None and array.dtype != dtype) or (ndim is not None and array.ndim != ndim):
        expected = f"{ndim}-dimensional {'' if dtype is None else np.dtype(dtype)}".strip()
        raise ValueError(f"{file}: holds {array.dtype} of shape {array.shape}, not {expected}")
    return array


def release_pages(array: npt.NDArray[Any]) -> None:
    """Release the memory of a memory-mapped array's pages; they are read again from the file when needed.

    Writes are kept. For a view, the pages of the whole mapping are released. Pages of files count as the process's
    memory, and reading one page brings in its neighbours, sixteen of them on Linux.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(array: npt.NDArray[Any], size: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield (index of its first row, copy) of every `size` rows of a memory-mapped array, and release the pages."""
    for start in range(0, len(array), size):
        copy = np.array(array[start : start + size])
        release_pages(array)
        yield start, copy
