"""The verb clean: two sources of one domain become documents and counts, or one message."""

import json
import pathlib
import sys
import zipfile
from typing import Any

import pytest

from speciate import clean
from speciate.data.documents import read_documents
from speciate.verb import run

PIN = {"kind": "package", "name": "tiny", "version": "1.0", "file": "tiny-1.0-py3-none-any.whl", "sha256": "0" * 64}


def source(**settings: Any) -> dict[str, Any]:
    return {**PIN, "include": ["*.py"], "reader": "text", **settings}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, texts in {
        "one": {"a.py": "alpha = 1\r\n", "b.py": "beta = 2\n", "empty.py": "\n", "c.md": "no"},
        "two": {"a.py": "gamma = 3\n", "copy.py": "alpha = 1", "tiny.py": "x"},
    }.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for member, text in texts.items():
                archive.writestr(member, text)
    return tmp_path


def verb(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, sources: dict[str, Any], *archives: str) -> None:
    filters = [{"kind": "length", "min_characters": 3}, "exact_duplicate"]
    (folder / "spec.json").write_text(json.dumps({"domain": "code", "sources": sources, "filters": filters}))
    arguments = ["clean.py", "--spec", str(folder / "spec.json")]
    for archive in archives or [f"{name}={folder / name}" for name in sources]:
        arguments += ["--archive", archive]
    arguments += [
        "--documents",
        str(folder / "out" / "documents.parquet"),
        "--counts",
        str(folder / "out" / "counts.json"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    run(clean.main)


def test_documents_and_counts(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verb(folder, monkeypatch, {"one": source(), "two": source()})
    kept = list(read_documents(folder / "out" / "documents.parquet"))
    assert [(row.id, row.domain, row.group, row.text) for row in kept] == [
        ("one/a.py", "code", "one/a.py", "alpha = 1"),
        ("one/b.py", "code", "one/b.py", "beta = 2"),
        ("two/a.py", "code", "two/a.py", "gamma = 3"),
    ]
    two = {"exact_duplicate": 1, "too_short": 1}
    assert json.loads((folder / "out" / "counts.json").read_text()) == {
        "read": 6,
        "kept": 3,
        "bytes_read": 11 + 9 + 1 + 10 + 9 + 1,
        "bytes_kept": 9 + 8 + 9,
        "dropped": {"empty": 1, "exact_duplicate": 1, "too_short": 1},
        "by_source": {
            "one": {"read": 3, "kept": 2, "bytes_read": 21, "bytes_kept": 17, "dropped": {"empty": 1}},
            "two": {"read": 3, "kept": 1, "bytes_read": 20, "bytes_kept": 9, "dropped": two},
        },
    }


def test_twice_gives_the_same_bytes(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for _ in range(2):
        verb(folder, monkeypatch, {"one": source(), "two": source()})
        seen.append([(folder / "out" / name).read_bytes() for name in ("documents.parquet", "counts.json")])
    assert seen[0] == seen[1]


def hostile(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "one", "a") as archive:
        archive.writestr("../../out.py", "x")


def latin(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "one", "a") as archive:
        archive.writestr("latin.py", b"caf\xe9 = 1")


def cut(folder: pathlib.Path) -> None:
    (folder / "one").write_bytes((folder / "one").read_bytes()[:-40])


def short(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "one", "w") as archive:
        archive.writestr("a.py", "x")
        archive.writestr("b.py", " ")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (hostile, "source one: member '../../out.py' escapes the archive's folder"),
        (latin, "source one: member latin.py is not UTF-8: byte 0xe9 at offset 3"),
        (cut, "source one: the archive is damaged, cut off, or neither zip nor tar"),
        (short, "domain code: no text is left of 2; dropped: {'empty': 1, 'too_short': 1}"),
        (lambda folder: (folder / "one").unlink(), "source one: there is no archive"),
    ],
)
def test_bad_input_ends_in_one_message_and_leaves_nothing(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], harm: Any, message: str
) -> None:
    harm(folder)
    with pytest.raises(SystemExit) as stopped:
        verb(folder, monkeypatch, {"one": source()})
    assert stopped.value.code == 1
    assert f"speciate clean: error: {message}" in capsys.readouterr().err
    assert list((folder / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("sources", "archives", "message"),
    [
        ({"one": source(reader="pdf")}, (), "sources.one.reader: 'pdf' is no kind of data/readers"),
        ({"one": source(kind="torrent")}, (), "sources.one: 'torrent' is no kind of data/sources"),
        ({"one": source()}, ("two=x",), "--archive: domain code needs each of one once, as NAME=PATH"),
        ({"one": source()}, ("one=x", "one=y"), "--archive: domain code needs each of one once, as NAME=PATH"),
        ({"one": source(include=["*.rst"])}, (), "source one: include: no member of tiny-1.0-py3-none-any.whl matches"),
    ],
)
def test_a_wrong_spec_or_argument_is_named(
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sources: dict[str, Any],
    archives: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        verb(folder, monkeypatch, sources, *archives)
    assert message in capsys.readouterr().err
    assert not (folder / "out" / "documents.parquet").exists()
