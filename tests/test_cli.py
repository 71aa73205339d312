"""One clear message when a verb fails, and nothing half-written."""

import errno
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from speciate import cli
from speciate.cli import run
from speciate.io import atomic_write


def test_a_mendable_error_is_one_message_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise ValueError("source django: sha256 differs")

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.endswith(": error: source django: sha256 differs\n")
    assert "Traceback" not in error


def test_too_little_memory_is_a_message_too(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        np.empty((1 << 59,), np.uint64)

    with pytest.raises(SystemExit, match="1"):
        run(main)
    assert ": error: Unable to allocate 4.00 EiB" in capsys.readouterr().err


def test_a_full_disk_says_where(tmp_path: pathlib.Path) -> None:
    def fill() -> None:
        with atomic_write(tmp_path / "table.csv"):
            raise OSError(errno.ENOSPC, "a library's words")

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full: a/file (No space left on device)"),
        (errno.EDQUOT, "the disk is full: a/file (Disk quota exceeded)"),
        (errno.ENOENT, "a/file: there is no such file"),
        (errno.EACCES, "a/file: may not be read or written"),
        (errno.ENOTDIR, "[Errno 20] Not a directory: 'a/file'"),
    ],
)
def test_an_error_of_the_system_says_what_to_look_at(
    number: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise OSError(number, os.strerror(number), "a/file")

    with pytest.raises(SystemExit, match="1"):
        run(main)
    assert capsys.readouterr().err.endswith(f": error: {says}\n")


@pytest.mark.parametrize(("mends", "status"), [("pass", 0), ("raise ValueError('wrong')", 1)])
def test_nobody_reads_what_it_says_and_it_ends_as_it_would(mends: str, status: int) -> None:
    lines = f"from speciate.cli import run, say\ndef main():\n say('here')\n say('again')\n {mends}\nrun(main)"
    reading, writing_to = os.pipe()
    os.close(reading)
    environment = {"PYTHONPATH": str(pathlib.Path(cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", lines], env=environment, stderr=writing_to, check=False)
    os.close(writing_to)
    assert done.returncode == status


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        run(main)


def test_writing_replaces_only_when_the_block_ends_well(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "folder" / "table.csv"
    with atomic_write(target) as temp_path:
        temp_path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(target) as temp_path:
            temp_path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert target.read_text() == "old"
    assert [file.name for file in target.parent.iterdir()] == ["table.csv"]
