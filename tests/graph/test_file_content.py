"""Test that the content of the user's files decides, and that an unchanged file is not read again."""

import hashlib
import json
import os
import pathlib
import shutil

import pytest

from speciate.graph import file_content
from speciate.graph.file_content import FileContents

LONG_AGO = 1_000_000_000 * 10**9


@pytest.fixture
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Write a file, whose age does not matter here."""
    monkeypatch.setattr(file_content, "SETTLED_NS", -(10**18))
    (tmp_path / "a {b}\u00a0[c].txt").write_text("one")
    return tmp_path / "a {b}\u00a0[c].txt"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the digests of contents that are computed."""
    found: list[str] = []
    real = hashlib.file_digest

    def digest(handle, name):
        computed = real(handle, name)
        found.append(computed.hexdigest())
        return computed

    monkeypatch.setattr(hashlib, "file_digest", digest)
    return found


def digest(file: pathlib.Path) -> str:
    """Return the digest as a process of its own would, with notes beside the file."""
    return FileContents(file.parent / "notes" / "contents.json").digest([str(file)])


def test_an_older_date_does_not_hide_another_content(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """`cp -p` of a changed copy of the same size, dated before the first reading."""
    before = digest(file)
    (tmp_path / "copy").write_text("two")
    os.utime(tmp_path / "copy", ns=(LONG_AGO, LONG_AGO))
    shutil.copy2(tmp_path / "copy", file)
    assert file.stat().st_mtime_ns == LONG_AGO
    assert digest(file) != before
    shutil.copy2(tmp_path / "copy", file.with_name("other"))
    file.write_text("one")
    assert digest(file) == before


def test_content_changed_in_place_under_its_old_date_is_noticed(file: pathlib.Path) -> None:
    before, state = digest(file), file.stat()
    file.write_text("two")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (state.st_size, state.st_mtime_ns, state.st_ino)
    assert digest(file) != before


def test_a_touched_file_has_the_same_digest(file: pathlib.Path) -> None:
    before = digest(file)
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert digest(file) == before


def test_an_unchanged_file_is_read_once(file: pathlib.Path, reads: list[str]) -> None:
    first = digest(file)
    assert reads == [hashlib.sha256(b"one").hexdigest()]
    assert digest(file) == first and len(reads) == 1
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert digest(file) == first and len(reads) == 2


def test_a_file_that_has_just_changed_is_read_again(
    file: pathlib.Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes may fall into one tick of the file system's clock."""
    monkeypatch.setattr(file_content, "SETTLED_NS", 10**18)
    assert digest(file) == digest(file) and len(reads) == 2


def test_the_path_and_the_order_count(file: pathlib.Path) -> None:
    other = file.with_name("other")
    shutil.copy2(file, other)
    contents = FileContents()
    assert contents.digest([str(file)]) != contents.digest([str(other)])
    assert contents.digest([str(file), str(other)]) != contents.digest([str(other), str(file)])


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"x": 1}', '{"x": ["a", 2]}', "null"])
def test_damaged_notes_are_none(file: pathlib.Path, notes: str) -> None:
    expected = FileContents().digest([str(file)])
    (file.parent / "notes").mkdir()
    (file.parent / "notes" / "contents.json").write_text(notes)
    assert digest(file) == expected == digest(file)
    assert list(json.loads((file.parent / "notes" / "contents.json").read_text())) == [str(file)]


def test_notes_of_files_that_are_gone_are_dropped(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    digest(file)
    file.unlink()
    file.with_name("next").write_text("next")
    digest(file.with_name("next"))
    assert list(json.loads((tmp_path / "notes" / "contents.json").read_text())) == [str(file.with_name("next"))]


def test_where_notes_cannot_be_written_files_are_read_each_time(file: pathlib.Path, reads: list[str]) -> None:
    (file.parent / "notes").write_text("a file where the folder of notes would be")
    assert digest(file) == digest(file) and len(reads) == 2
