"""Test the stage clean: two sources of one domain become documents and counts, or a single message."""

import functools
import hashlib
import json
import operator
import pathlib
import zipfile
from typing import Any

import pyarrow.parquet as pq
import pytest

from speciate import cli
from speciate.cli import FAILED
from speciate.config.components import options_of
from speciate.data.clean.pipeline import CleaningCounts
from speciate.data.documents import read_documents

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


def verb(
    folder: pathlib.Path,
    sources: dict[str, Any],
    *archives: str,
    shard: str = "0-of-1",
    **settings: Any,
) -> pathlib.Path:
    spec = {"domain": "code", "sources": sources, "filters": [{"kind": "length", "min_characters": 3}], **settings}
    (folder / "spec.json").write_text(json.dumps(spec))
    arguments = ["clean", "--spec", str(folder / "spec.json"), "--shard", shard]
    for archive in archives or [f"{name}={folder / name}" for name in sources]:
        arguments += ["--archive", archive]
    cli.main([*arguments, "--output-folder", str(folder / "out" / shard)])
    return folder / "out" / shard


def ids(out: pathlib.Path) -> list[str]:
    """Return the documents' ids, sorted: their order is that of the texts' digests."""
    return sorted(document.id for document in read_documents(out / "documents.parquet"))


def group_of(text: str) -> str:
    """Return the group of a document that nothing groups: a digest of its text."""
    return f"text:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def numbers(written: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in written.items() if key not in ("audit", "by_source", "parts")}


def test_documents_counts_and_samples(folder: pathlib.Path) -> None:
    out = verb(folder, {"one": source(), "two": source()})
    kept = list(read_documents(out / "documents.parquet"))
    assert sorted((row.id, row.domain, row.group, row.text) for row in kept) == [
        ("one/a.py", "code", group_of("alpha = 1"), "alpha = 1"),
        ("one/b.py", "code", group_of("beta = 2"), "beta = 2"),
        ("two/a.py", "code", group_of("gamma = 3"), "gamma = 3"),
        ("two/copy.py", "code", group_of("alpha = 1"), "alpha = 1"),
    ]
    digests = [hashlib.blake2b(row.text.encode(), digest_size=16).digest() for row in kept]
    assert digests == sorted(digests)
    written = json.loads((out / "counts.json").read_text())
    assert numbers(written) == {
        "read": 6,
        "kept": 4,
        "bytes_read": 11 + 9 + 1 + 10 + 9 + 1,
        "bytes_kept": 9 + 8 + 9 + 9,
        "dropped": {"empty": 1, "too_short": 1},
        "edited": {},
    }
    assert numbers(written["by_source"]["one"]) == {
        "read": 3,
        "kept": 2,
        "bytes_read": 21,
        "bytes_kept": 17,
        "dropped": {"empty": 1},
        "edited": {},
    }
    assert written["audit"]["raw"]["trailing_space"] == 4 and written["audit"]["clean"]["trailing_space"] == 0
    samples = pq.read_table(out / "dropped.parquet").to_pylist()
    assert [(row["reason"], row["filter"], row["id"]) for row in samples] == [
        ("empty", "clean", "one/empty.py"),
        ("too_short", "length", "two/tiny.py"),
    ]


def test_twice_gives_the_same_bytes(folder: pathlib.Path) -> None:
    seen = []
    for _ in range(2):
        out = verb(folder, {"one": source(), "two": source()})
        seen.append([(out / name).read_bytes() for name in ("documents.parquet", "dropped.parquet", "counts.json")])
    assert seen[0] == seen[1]


def test_shards_take_every_nth_text_and_together_all(folder: pathlib.Path) -> None:
    sources = {"one": source(), "two": source()}
    outs = [verb(folder, sources, shard=f"{index}-of-4", shards=4) for index in range(4)]
    assert [ids(out) for out in outs] == [["one/a.py", "two/a.py"], ["one/b.py", "two/copy.py"], [], []]
    counts = [CleaningCounts.from_json(json.loads((out / "counts.json").read_text())) for out in outs]
    together = functools.reduce(operator.add, counts).as_json()
    reference = verb(folder, sources)
    assert together == {
        key: value
        for key, value in json.loads((reference / "counts.json").read_text()).items()
        if key not in ("by_source", "parts")
    }


def test_an_archive_of_one_shard_is_read_whole(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_of("data/fetch/sources", "package"), "sharded", True)
    assert ids(verb(folder, {"one": source()}, shard="1-of-2", shards=2)) == ["one/a.py", "one/b.py"]


def test_a_filter_reads_sources_of_its_own(folder: pathlib.Path) -> None:
    filters = [{"kind": "decontamination", "ngram": 2, "sources": {"exam": source(include=["copy.py"])}}]
    archives = [f"one={folder / 'one'}", f"exam={folder / 'two'}"]
    out = verb(folder, {"one": source()}, *archives, filters=filters)
    assert ids(out) == ["one/b.py"]
    assert json.loads((out / "counts.json").read_text())["dropped"] == {"contaminated": 1, "empty": 1}


def hostile(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "one", "a") as archive:
        archive.writestr("../../out.py", "x")


def latin(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "one", "a") as archive:
        archive.writestr("latin.py", b"caf\xe9 = 1")


def cut(folder: pathlib.Path) -> None:
    (folder / "one").write_bytes((folder / "one").read_bytes()[:-40])


def surrogates(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "one", "w") as archive:
        archive.writestr("a.py", b"\xed\xa0\x80 = 1")


def huge(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "one", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", "x = 1\n" * 3_000_000)


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
        (surrogates, "source one: member a.py is not UTF-8: byte 0xed at offset 0"),
        (huge, "domain code: no documents are left (texts read: 1; dropped: {'too_large': 1})"),
        (short, "domain code: no documents are left (texts read: 2; dropped: {'empty': 1, 'too_short': 1})"),
        (lambda folder: (folder / "one").unlink(), "source one: there is no archive"),
    ],
)
def test_bad_input_ends_in_one_message_and_leaves_nothing(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], harm: Any, message: str
) -> None:
    harm(folder)
    with pytest.raises(SystemExit) as stopped:
        verb(folder, {"one": source()})
    assert stopped.value.code == FAILED
    assert f"speciate clean: error: {message}" in capsys.readouterr().err
    assert [*(folder / "out").rglob("*.*")] == []


@pytest.mark.parametrize(
    ("sources", "archives", "message"),
    [
        ({"one": source(reader="pdf")}, (), "sources.one.reader: 'pdf' is not a kind of data/fetch/readers"),
        ({"one": source(kind="torrent")}, (), "sources.one: 'torrent' is not a kind of data/fetch/sources"),
        ({"one": source()}, ("two=x",), "--archive: domain code needs each of one once, as NAME=PATH"),
        ({"one": source()}, ("one=x", "one=y"), "--archive: domain code needs each of one once, as NAME=PATH"),
        ({"one": source()}, ("one",), "--archive: domain code needs each of one once, as NAME=PATH"),
        ({"one": source(include=["*.rst"])}, (), "source one: include: no member of tiny-1.0-py3-none-any.whl matches"),
    ],
)
def test_a_wrong_spec_or_argument_is_named(
    folder: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    sources: dict[str, Any],
    archives: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        verb(folder, sources, *archives)
    assert message in capsys.readouterr().err
    assert [*(folder / "out").rglob("*.parquet")] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard": "1-of-3", "shards": 2}, "--shard: 1-of-3 of domain code, which has 2"),
        ({"shard": "2-of-2", "shards": 2}, "--shard: '2-of-2' is not a shard; the first of eight is 0-of-8"),
        ({"filters": ["exact_duplicate"]}, "filters.0: 'exact_duplicate' is not a kind of data/clean/filters"),
        ({"filters": [{"kind": "length", "max_words": 3}]}, "filters.0.max_words: unknown key"),
        (
            {"filters": [{"kind": "gopher_quality", "max_symbol_ratio": 0.0}]},
            "filters.0.max_symbol_ratio: input should",
        ),
        ({"filters": ["decontamination"]}, "filters.0.sources: is missing"),
        (
            {"filters": [{"kind": "length", "min_characters": 99}]},
            "domain code: no documents are left (texts read: 3; dropped: {'empty': 1, 'too_short': 2})",
        ),
        (
            {"filters": [{"kind": "decontamination", "sources": {"exam": source()}}]},
            "--archive: domain code needs each of one, exam once, as NAME=PATH",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    folder: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        verb(folder, {"one": source()}, **settings)
    assert stopped.value.code == FAILED
    assert message in capsys.readouterr().err
    assert [*(folder / "out").rglob("*.*")] == []


def test_one_id_twice_is_refused_with_its_source_and_its_files(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "a.jsonl").write_text('{"text": "alpha", "k": 1}\n{"text": "beta", "k": 2}\n')
    (folder / "b.jsonl").write_text('{"text": null, "k": 2}\n{"text": "gamma", "k": "2"}\n')
    mine = {"kind": "files", "paths": ["[ab].jsonl"], "id": "k"}
    (folder / "fetch.json").write_text(json.dumps({"name": "mine", "source": mine}))
    cli.main(["fetch", "--spec", "fetch.json", "--output", "mine"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        verb(folder, {"mine": mine})
    message = "source mine: two records have the id '2': file a.jsonl: row 2, and file b.jsonl: row 2"
    assert f"speciate clean: error: {message}\n" in capsys.readouterr().err
    # an archive names members and lines
    with zipfile.ZipFile(folder / "one", "w") as archive:
        archive.writestr("m/a.jsonl", '{"text": "alpha", "k": 1}\n')
        archive.writestr("m/b.jsonl", '{"text": "beta", "k": 1}\n')
    with pytest.raises(SystemExit):
        verb(folder, {"one": source(include=["*.jsonl"], reader={"kind": "jsonl", "id": "k"})})
    message = "source one: two records have the id '1': member m/a.jsonl: line 1, and member m/b.jsonl: line 1"
    assert f"speciate clean: error: {message}\n" in capsys.readouterr().err
