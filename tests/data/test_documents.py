"""Test that documents go to disk and come back, with the same bytes each time."""

import pathlib

import pyarrow.parquet as pq
import pytest

from speciate.data import documents
from speciate.data.documents import Document, DocumentWriter, read_documents, read_tables, write_documents

ROWS = [Document(f"d{index}", "prose", f"g{index % 3}", f"text {index} ü\n" * (index + 1)) for index in range(20)]


def test_what_is_written_is_read(tmp_path: pathlib.Path) -> None:
    assert write_documents(tmp_path / "a.parquet", iter(ROWS)) == 20
    assert list(read_documents(tmp_path / "a.parquet")) == ROWS


def test_no_documents_make_a_file_with_none(tmp_path: pathlib.Path) -> None:
    write_documents(tmp_path / "a.parquet", [])
    assert list(read_documents(tmp_path / "a.parquet")) == []


def test_equal_documents_make_equal_bytes(tmp_path: pathlib.Path) -> None:
    write_documents(tmp_path / "a.parquet", ROWS)
    write_documents(tmp_path / "b.parquet", ROWS)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_large_files_come_in_row_groups(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "ROW_GROUP_DOCUMENTS", 7)
    write_documents(tmp_path / "a.parquet", ROWS)
    assert [table.num_rows for table in read_tables(tmp_path / "a.parquet", ["id"])] == [7, 7, 6]
    monkeypatch.setattr(documents, "ROW_GROUP_BYTES", 1)
    write_documents(tmp_path / "b.parquet", ROWS)
    assert pq.ParquetFile(tmp_path / "b.parquet").num_row_groups == 20
    assert list(read_documents(tmp_path / "b.parquet")) == ROWS


def test_an_error_while_writing_is_not_hidden(tmp_path: pathlib.Path) -> None:
    with pytest.raises(AttributeError), DocumentWriter(tmp_path / "a.parquet") as writer:
        writer.write("no document")


def test_another_file_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet at all, not even close")
    with pytest.raises(ValueError, match=r"a\.parquet: is not a documents file"):
        list(read_documents(tmp_path / "a.parquet"))
    pq.write_table(pq.read_table(_written(tmp_path)).drop_columns(["group"]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: has columns \['id', 'domain', 'text'\]"):
        list(read_documents(tmp_path / "b.parquet"))


def _written(folder: pathlib.Path) -> pathlib.Path:
    write_documents(folder / "whole.parquet", ROWS)
    return folder / "whole.parquet"
