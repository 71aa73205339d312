import pathlib

import numpy as np
import pytest

from speciate.data.arrays import GrowingArray, read_array


@pytest.mark.parametrize("lengths", [[], [0], [5], [3, 0, 1000, 7]])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_it_reads_back_as_one_array(tmp_path: pathlib.Path, lengths: list[int], dtype: type) -> None:
    parts = [np.arange(length).astype(dtype) for length in lengths]
    with GrowingArray(tmp_path / "a.npy", dtype) as array:
        for part in parts:
            array.append(part)
    expected = np.concatenate([np.zeros(0, dtype), *parts])
    for mode in (None, "r"):
        found = np.load(tmp_path / "a.npy", mmap_mode=mode)
        assert found.dtype == dtype
        assert found.tolist() == expected.tolist()
    np.save(tmp_path / "b.npy", expected)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_another_type_is_refused(tmp_path: pathlib.Path) -> None:
    with GrowingArray(tmp_path / "a.npy", np.uint16) as array, pytest.raises(AssertionError):
        array.append(np.zeros(3, np.int64))


@pytest.mark.parametrize("size", [0, 5, 60, 130, 1000])
def test_a_file_that_is_cut_off_is_named(tmp_path: pathlib.Path, size: int) -> None:
    np.save(tmp_path / "a.npy", np.arange(500))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a.npy: is cut off, or no array"):
        read_array(tmp_path / "a.npy")
