"""Test that passages survive their file, including nulls, faults and their origin."""

import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.data.documents import write_documents
from speciate.data.fetch import passages
from speciate.data.fetch.passages import read_origin, read_passages, write_passages
from speciate.data.passage import Passage

WORDS = st.text(st.characters(codec="utf-8"))
PASSAGES = st.lists(st.builds(Passage, WORDS, WORDS, st.none() | WORDS, st.none() | WORDS))


@settings(deadline=None, max_examples=30)
@given(PASSAGES)
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory, written: list[Passage]) -> None:
    file = tmp_path_factory.mktemp("p") / "archive"
    assert write_passages(file, iter(written), {"commit": "c"}) == len(written)
    assert list(read_passages(file)) == written
    assert read_origin(file) == {"commit": "c"}


def test_equal_passages_give_equal_bytes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "ROW_GROUP_BYTES", 10)
    written = [Passage(str(number), "g", "text" * number) for number in range(9)]
    for name in ("a", "b"):
        write_passages(tmp_path / name, written, {"x": "1", "y": "2"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(read_passages(tmp_path / "a")) == written


@pytest.mark.parametrize("cut", [0, 10, -20])
def test_a_damaged_file_is_named(tmp_path: pathlib.Path, cut: int) -> None:
    write_passages(tmp_path / "archive", [Passage("a", "a", "x")], {})
    data = (tmp_path / "archive").read_bytes()
    (tmp_path / "archive").write_bytes(data[:cut])
    with pytest.raises(ValueError, match=r"archive: holds no passages: "):
        list(read_passages(tmp_path / "archive"))


def test_another_parquet_file_is_refused(tmp_path: pathlib.Path) -> None:
    write_documents(tmp_path / "archive", [])
    with pytest.raises(ValueError, match=r"archive: has columns \['id', 'domain', 'group', 'text'\], not"):
        list(read_passages(tmp_path / "archive"))
