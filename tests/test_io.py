"""Test that what is written has the mode that the umask gives, whatever writes it, and that a folder comes whole."""

import os
import pathlib
import stat
from collections.abc import Iterator

import pytest
import safetensors.torch
import torch

from speciate.io import atomic_folder, atomic_write


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_has_the_mode_of_the_umask_even_if_a_library_replaces_it(tmp_path: pathlib.Path, umask: int) -> None:
    with atomic_write(tmp_path / "text") as temp_path:
        temp_path.write_text("one")
    with atomic_write(tmp_path / "weights") as temp_path:
        safetensors.torch.save_file({"one": torch.zeros(1)}, temp_path)
    assert {mode(file) for file in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_folder_and_all_in_it_have_the_mode_of_the_umask(tmp_path: pathlib.Path, umask: int) -> None:
    with atomic_folder(tmp_path / "above" / "model") as temp_path:
        (temp_path / "inner").mkdir(mode=0o700)
        (temp_path / "inner" / "text").write_text("one")
        safetensors.torch.save_file({"one": torch.zeros(1)}, temp_path / "weights")
    folder = tmp_path / "above" / "model"
    assert mode(folder) == mode(folder / "inner") == 0o777 & ~umask
    assert mode(folder / "inner" / "text") == mode(folder / "weights") == 0o666 & ~umask


def test_a_folder_that_is_not_finished_leaves_nothing(tmp_path: pathlib.Path) -> None:
    def fail_half_way() -> None:
        with atomic_folder(tmp_path / "model") as temp_path:
            (temp_path / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("old")
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "model") as temp_path:
        (temp_path / "new").write_text("new")
    assert [file.name for file in tmp_path.rglob("*")] == ["model", "old"]
