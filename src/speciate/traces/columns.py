"""Bring the columns of a parquet trace to arrays of numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from speciate.selection.routing_record import NOT_CHOSEN, Integers

NUMBERS = ("layer", "expert", "rank", "position", "token")


class Names:
    """Numbers the texts of all columns, so that they can be sorted and compared as numbers."""

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {"": 0}
        self._names = [""]

    def number(self, name: str) -> int:
        number = self._number_of.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
        return number

    def text(self, number: int) -> str:
        return self._names[number] if number >= 0 else ""


def numbers_of(column: pa.ChunkedArray, name: str, where: str, names: Names) -> npt.NDArray[Any]:
    """Return a column as an array; texts become their numbers among `names`, and nulls become -1.

    Raises:
        ValueError: the column has another type than its meaning needs, or rows without a value.
    """
    if name not in NUMBERS and name != "weight" and not pa.types.is_dictionary(column.type):
        column = pc.cast(column, pa.string())
    if pa.types.is_string(column.type):
        column = pc.dictionary_encode(column)
    if pa.types.is_dictionary(column.type):
        coded = pa.chunked_array(column.unify_dictionaries() if column.num_chunks > 1 else column).combine_chunks()
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        number_of = np.array([names.number(str(value)) for value in coded.dictionary.to_pylist()] + [0], dtype=np.int64)
        codes = pc.fill_null(pc.cast(coded.indices, pa.int64()), len(coded.dictionary))
        result: npt.NDArray[Any] = number_of[codes.to_numpy(zero_copy_only=False)]
        return result
    if name == "weight":
        return np.asarray(column.to_numpy(), dtype=np.float32)
    if not pa.types.is_integer(column.type):
        raise ValueError(f"{where} has the type {column.type}, but must be of whole numbers")
    if column.null_count:
        if name not in ("expert", "token"):
            raise ValueError(f"{where} has {column.null_count} rows without a value")
        column = pc.fill_null(pc.cast(column, pa.int32()), NOT_CHOSEN)
    return np.asarray(column.to_numpy())


def run_unique(code_N: Integers) -> tuple[Integers, Integers, Integers]:
    """Return `np.unique`'s values, first places and inverse; fast where equal values follow one another."""
    change_N = np.empty(len(code_N), dtype=bool)
    change_N[0] = True
    np.not_equal(code_N[1:], code_N[:-1], out=change_N[1:])
    start_R = np.flatnonzero(change_N)
    values, first, of_R = np.unique(code_N[start_R], return_index=True, return_inverse=True)
    lengths = np.diff(np.r_[start_R, len(code_N)])
    return values, start_R[first], np.repeat(of_R.reshape(-1), lengths)
