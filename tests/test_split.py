"""The verb split: four files that hold every document once, whole groups at a time."""

import json
import pathlib
import sys

import pytest

from speciate import split
from speciate.data.documents import Document, read_documents, write_documents
from speciate.plan import SPLITS
from speciate.verb import run

ROWS = [Document(f"d{index}", "prose", f"g{index % 40}", "word " * (index % 7 + 1)) for index in range(400)]


def verb(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, rows: list[Document]) -> None:
    shares = {"validation": 0.1, "test": 0.2, "probe": 0.1, "seed": 0}
    (folder / "spec.json").write_text(json.dumps({"domain": "prose", "split": shares}))
    write_documents(folder / "documents.parquet", rows)
    paths = ["--documents", str(folder / "documents.parquet"), "--output-folder", str(folder / "out")]
    monkeypatch.setattr(sys, "argv", ["split.py", "--spec", str(folder / "spec.json"), *paths])
    run(split.main)


def test_every_document_is_in_one_split(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verb(tmp_path, monkeypatch, ROWS)
    found = {name: list(read_documents(tmp_path / "out" / f"{name}.parquet")) for name in SPLITS}
    assert sorted((row for rows in found.values() for row in rows), key=ROWS.index) == ROWS
    groups = {name: {row.group for row in rows} for name, rows in found.items()}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 40
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == {
        name: {"documents": len(rows), "groups": len(groups[name]), "bytes": sum(len(row.text) for row in rows)}
        for name, rows in found.items()
    }
    assert [len(groups[name]) for name in SPLITS] == [24, 4, 8, 4]
    for rows in found.values():  # the order of the documents is kept
        assert rows == [row for row in ROWS if row in rows]


def test_twice_gives_the_same_bytes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for _ in range(2):
        verb(tmp_path, monkeypatch, ROWS)
        seen.append({file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()})
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == ["counts.json", *sorted(f"{name}.parquet" for name in SPLITS)]


def test_too_few_groups_leave_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        verb(tmp_path, monkeypatch, ROWS[:3])
    assert "split: error: domain prose: a split would be empty: there are only 3 groups" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
