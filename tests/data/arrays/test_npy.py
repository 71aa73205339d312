import pathlib

import numpy as np
import pytest

from speciate.data.arrays.indexing import concatenate_ranges, unique_rows
from speciate.data.arrays.npy import read_array
from speciate.data.arrays.npy_writers import FixedArray, GrowingArray


@pytest.mark.parametrize("lengths", [[], [0], [5], [3, 0, 1000, 7]])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_it_reads_back_as_one_array(tmp_path: pathlib.Path, lengths: list[int], dtype: type) -> None:
    parts = [np.arange(length).astype(dtype) for length in lengths]
    with GrowingArray(tmp_path / "a.npy", dtype) as array:
        for part in parts:
            array.append(part)
    expected = np.concatenate([np.zeros(0, dtype), *parts])
    for mode in (None, "r"):
        array_read = np.load(tmp_path / "a.npy", mmap_mode=mode)
        assert array_read.dtype == dtype
        assert array_read.tolist() == expected.tolist()
    np.save(tmp_path / "b.npy", expected)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_another_type_is_refused(tmp_path: pathlib.Path) -> None:
    with GrowingArray(tmp_path / "a.npy", np.uint16) as array, pytest.raises(AssertionError):
        array.append(np.zeros(3, np.int64))


@pytest.mark.parametrize("size", [0, 5, 60, 130, 1000])
def test_a_file_that_is_cut_off_is_named(tmp_path: pathlib.Path, size: int) -> None:
    np.save(tmp_path / "a.npy", np.arange(500))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a.npy: is truncated or not an array"):
        read_array(tmp_path / "a.npy")


def test_an_array_of_known_shape_is_filled_in_any_order(tmp_path: pathlib.Path) -> None:
    expected = np.arange(12, dtype=np.uint32).reshape(3, 4)
    with FixedArray(tmp_path / "a.npy", np.uint32, (3, 4)) as fixed:
        for start in (2, 0):
            for row in range(3):
                fixed.put(4 * row + start, expected[row, start : start + 2])
    np.save(tmp_path / "b.npy", expected)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    with FixedArray(tmp_path / "a.npy", np.int64, (5, 0)):
        pass
    assert read_array(tmp_path / "a.npy").shape == (5, 0)
    fixed = FixedArray(tmp_path / "a.npy", np.int64, (2,))
    fixed.put(0, np.zeros(1, np.int64))
    with pytest.raises(AssertionError, match="1 elements were never written"):
        fixed.__exit__(None, None, None)


def test_ranges_stand_end_to_end() -> None:
    assert concatenate_ranges(np.array([5, 0, 9, 2]), np.array([2, 0, 1, 3])).tolist() == [5, 6, 9, 2, 3, 4]
    assert concatenate_ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_unique_rows_are_given_by_their_first_index() -> None:
    rows = [(3, 1), (2, 9), (3, 1), (3, 0), (2, 9), (2**64 - 1, 0)]
    firsts, inverse = unique_rows(np.array(rows, np.uint64))
    assert firsts.tolist() == [1, 3, 0, 5]
    assert [rows[firsts[index]] for index in inverse] == rows
    assert [part.tolist() for part in unique_rows(np.zeros((0, 2), np.uint64))] == [[], []]
