"""Test the user's own files: every format gives the same passages in any sharding, and a changed file is refused."""

import bz2
import gzip
import json
import lzma
import os
import pathlib
import tracemalloc
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from speciate.data.fetch import formats
from speciate.data.fetch.sources.files import Options, fetch, read
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError
from speciate.data.shard import Shard

LINES = b'{"text": "one", "k": "a"}\n\n{"text": null, "k": "b"}\n{"text": "drei \xc3\xa4", "k": "c"}\n'
ROWS = {"text": ["one", None, "drei ä"], "k": ["a", "b", "c"]}


WHOLE = Shard()


def parquet(rows: dict[str, Any], **settings: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(rows), sink, **settings)
    return bytes(sink.getvalue())


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Change to the folder that a study's relative paths start from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    return tmp_path


def put(name: str, data: bytes) -> None:
    path = pathlib.Path("my", name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def run(*paths: str, shard: Shard = WHOLE, **settings: Any) -> list[Passage]:
    options = Options(kind="files", paths=paths or ("my/*",), **settings)
    fetch(options, "mine", pathlib.Path("inventory"), shard)
    return list(read(options, "mine", pathlib.Path("inventory")))


@pytest.mark.parametrize(
    ("name", "data", "numbers"),
    [
        ("a.jsonl", LINES, (1, 3, 4)),
        ("a.jsonl.gz", gzip.compress(LINES[:30], mtime=0) + gzip.compress(LINES[30:], mtime=0), (1, 3, 4)),
        ("a.jsonl.zst", zstandard.compress(LINES[:30]) + zstandard.compress(LINES[30:]), (1, 3, 4)),
        ("a.parquet", parquet(ROWS), (1, 2, 3)),
        ("a.parquet", parquet(ROWS, row_group_size=1), (1, 2, 3)),
        ("a.parquet", parquet({**ROWS, "text": pa.array(ROWS["text"]).dictionary_encode()}), (1, 2, 3)),
    ],
)
def test_every_format_gives_the_same_records(name: str, data: bytes, numbers: tuple[int, ...]) -> None:
    put(name, data)
    ids = [f"my/{name}#{number}" for number in numbers]
    assert run() == [Passage(each, None, text) for each, text in zip(ids, ROWS["text"], strict=True)]
    assert [(each.id, each.group) for each in run(id="k", group="text", bad_records="drop")] == [
        ("a", "one"),
        (ids[1], None),  # this row's group is null
        ("c", "drei ä"),
    ]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.txt", bytes),
        ("a.txt.gz", gzip.compress),
        ("a.txt.zst", zstandard.compress),
        ("a.txt.bz2", bz2.compress),
        ("a.txt.xz", lzma.compress),
    ],
)
def test_a_txt_file_is_one_document(name: str, pack: Any) -> None:
    put(name, pack("über\nalles\n".encode()))
    assert run() == [Passage(f"my/{name}", None, "über\nalles\n")]


def test_any_file_is_plain_text_when_asked() -> None:
    put("a.md", b"# title\n")
    put("b.csv", b"x,y\n1,2\n")
    put("c.py.gz", gzip.compress(b"x = 1\n"))
    put("d.jsonl", b'{"text": "a"}\n')
    texts = {"a.md": "# title\n", "b.csv": "x,y\n1,2\n", "c.py.gz": "x = 1\n", "d.jsonl": '{"text": "a"}\n'}
    assert {each.id: each.text for each in run(format="text")} == {f"my/{name}": text for name, text in texts.items()}
    put("sub/e.json", b'{"text": "a"}\n')
    assert [each.text for each in run("my/sub/*", format="jsonl")] == ["a"]
    put("sub/f", parquet(ROWS))
    assert [each.text for each in run("my/sub/f", format="parquet")] == ROWS["text"]
    with pytest.raises(
        ValueError, match=r"my/a\.md has no known format: .*; set `format: text` to read it as plain text"
    ):
        run("my/a.md")


def test_a_byte_order_mark_is_no_part_of_a_record() -> None:
    put("a.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n\xef\xbb\xbf\n\xef\xbb\xbf{"text": "b"}\n{"text": "c"}\n\xef\xbb\xbf')
    for policy in ("refuse", "drop"):
        assert [(each.id, each.text) for each in run(bad_records=policy)] == [
            ("my/a.jsonl#1", "a"),
            ("my/a.jsonl#3", "b"),
            ("my/a.jsonl#4", "c"),
        ]


def test_wide_encodings_are_named_with_the_file() -> None:
    for name, data in (("a.txt", "привет мир".encode("utf-16-le")), ("a.jsonl", '{"text": "a"}\n'.encode("utf-16-be"))):
        put(name, data)
        with pytest.raises(
            ReadingError, match=rf"^source mine: file my/{name}:? looks like UTF-16.E, not UTF-8: convert"
        ):
            run(f"my/{name}")
    assert [(each.text, each.fault) for each in run("my/a.txt", bad_records="drop")] == [(None, "not_utf8")]


@pytest.mark.parametrize("count", [1, 2])
def test_a_record_without_the_column_is_dropped_unless_all_are(count: int) -> None:
    put("a.jsonl", b'{"text": "a"}\n{"content": "b"}\n{"content": "c", "text": "d"}\n')
    read = [each for index in range(count) for each in run(shard=Shard(index, count), bad_records="drop")]
    assert sorted((each.id, each.text, each.fault) for each in read if each.text) == [
        ("my/a.jsonl#1", "a", None),
        ("my/a.jsonl#3", "d", None),
    ]
    assert [(each.id, each.fault) for each in read if not each.text] == [("my/a.jsonl#2", "no_column")]
    with pytest.raises(ReadingError, match=r"file my/a\.jsonl: row 2: there is no column 'text'; available: content$"):
        run()
    put("b.jsonl", b'{"content": "b"}\n' * 3)
    for index in range(count):
        with pytest.raises(ReadingError, match=r"file my/b\.jsonl: there is no column 'text'; available: content$"):
            run("my/b.jsonl", shard=Shard(index, count), bad_records="drop")


def test_one_column_name_twice_is_named() -> None:
    table = pa.table([["x"], ["y"], ["z"]], names=["text", "text", "k"])
    pq.write_table(table, "my/a.parquet")
    with pytest.raises(
        ReadingError, match=r"^source mine: file my/a\.parquet: there are 2 columns 'text'; rename all bu"
    ):
        run()
    assert [each.text for each in run(text="k")] == ["z"]


def test_three_lines_of_config_do(here: pathlib.Path) -> None:
    from speciate.config.data import Domain

    domain = Domain.model_validate({"sources": {"mine": {"kind": "files", "paths": ["my/*.parquet"]}}})
    put("x.parquet", parquet(ROWS))
    fetch(domain.sources["mine"], "mine", here / "inventory", Shard())  # type: ignore[arg-type]
    assert len(list(read(domain.sources["mine"], "mine", here / "inventory"))) == 3  # type: ignore[arg-type]


def test_globs_reach_into_folders_and_match_once() -> None:
    put("b.txt", b"b")
    put("sub/a.txt", b"a")
    assert [each.id for each in run("my/**/*.txt", "my/b.txt")] == ["my/b.txt", "my/sub/a.txt"]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_out_every_record_once_under_the_same_name(count: int) -> None:
    for name in "abcde":
        put(f"{name}.jsonl", b"".join(b'{"text": "%s%d"}\n' % (name.encode(), row) for row in range(4)))
    reference = run()
    parts = [run(shard=Shard(index, count)) for index in range(count)]
    assert sorted((each for part in parts for each in part), key=lambda each: each.id) == reference
    assert all(parts)


def test_the_inventory_says_what_was_there(here: pathlib.Path) -> None:
    put("a.txt", b"hello")
    run()
    first = (here / "inventory").read_bytes()
    assert json.loads(first)["files"] == [
        {
            "path": "my/a.txt",
            "bytes": 5,
            "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        }
    ]
    run()
    assert (here / "inventory").read_bytes() == first


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda path: path.unlink(), "has disappeared since it was fetched"),
        (lambda path: path.write_bytes(b"hell"), "has 4 bytes, not the 5 it had"),
        (lambda path: path.write_bytes(b"hullo"), "has changed since it was fetched: expected sha256 2cf24d.* got "),
    ],
)
def test_another_file_than_was_fetched_is_refused(here: pathlib.Path, change: Any, problem: str) -> None:
    put("a.txt", b"hello")
    options = Options(kind="files", paths=("my/*",))
    fetch(options, "mine", here / "inventory", Shard())
    change(here / "my" / "a.txt")
    with pytest.raises(ValueError, match=f"source mine: file my/a.txt {problem}"):
        list(read(options, "mine", here / "inventory"))


def test_a_file_that_changes_under_the_reader_is_refused(here: pathlib.Path) -> None:
    put("a.jsonl", LINES)
    options = Options(kind="files", paths=("my/*",))
    fetch(options, "mine", here / "inventory", Shard())
    passages = read(options, "mine", here / "inventory")
    next(passages)
    os.utime("my/a.jsonl", ns=(1, 1))
    with pytest.raises(ValueError, match=r"source mine: file my/a\.jsonl was changed while it was read"):
        list(passages)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)[:-9], "is damaged or cut off: Compressed file ended before"),
        ("a.jsonl.zst", zstandard.compress(LINES)[:-3], "is damaged or cut off: it ends inside a compressed frame"),
        ("a.jsonl.bz2", bz2.compress(LINES)[:-3], "is damaged or cut off: it ends inside a compressed stream"),
        ("a.jsonl.zst", LINES, "is damaged or cut off: b'{\"te' does not start a zstd frame"),
        ("a.jsonl.gz", LINES, "is damaged or cut off: Not a gzipped file"),
        ("a.jsonl.gz", b"", "is damaged or cut off: it is empty"),
        ("a.parquet", parquet(ROWS)[:-40], "is damaged or cut off: Parquet magic bytes not found"),
        ("a.parquet", b"", "is damaged or cut off: Parquet file size is 0 bytes"),
        ("a.parquet", parquet({"content": ["a"]}), ": there is no column 'text'; available: content"),
        ("a.jsonl", b'{"content": "a"}', ": row 1: there is no column 'text'; available: content"),
        ("a.jsonl", LINES + b'{"text": ', ": row 5: is not JSON"),
        ("a.parquet", parquet({"text": [b"x"]}), ": row 1: column 'text' holds bytes, not text"),
        (
            "a.parquet",
            parquet({"text": pa.array([b"x", b"\xff"]).view(pa.string())}),
            ": row 2: is not UTF-8: byte 0xff",
        ),
        ("a.txt", b"abc\xe9", ": is not UTF-8: byte 0xe9 at offset 3"),
    ],
)
def test_a_bad_file_is_named_in_one_line(name: str, data: bytes, problem: str) -> None:
    put(name, data)
    with pytest.raises(ValueError, match=rf"^source mine: file my/{name} ?{problem}") as refused:
        run()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (("my/*.parquet",), r"no file matches my/\*\.parquet \(from "),
        (("my/*",), r"my/a\.pdf has no known format: \.jsonl, "),
        (("my",), r"my is a folder: write my/\* for the files in it, or my/\*\*/\* for those in its folders too$"),
        (("my/",), r"my/ is a folder: write my/\* for the files in it"),
        (("m*",), r"m\* matches no file, only folders such as my: write my/\*"),
        (("my/gone.txt",), r"no file matches my/gone\.txt \(from "),
    ],
)
def test_paths_that_give_nothing_to_read_are_refused(paths: tuple[str, ...], problem: str) -> None:
    put("a.pdf", b"%PDF")
    with pytest.raises(ValueError, match=f"source mine: paths: {problem}"):
        run(*paths)


def test_one_file_under_two_names_is_refused() -> None:
    put("a.txt", b"x")
    os.symlink("a.txt", "my/b.txt")
    with pytest.raises(ValueError, match=r"source mine: paths: .*a\.txt is matched under two names"):
        run()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (b"my/\xff.txt", r"'my/\\udcff\.txt' is a name that is not UTF-8"),
        (b"my/a\nb.txt", r"'my/a\\nb\.txt' has the control character or line break U\+000A in its name; rename it"),
        (b"my/a\x1bb.txt", r"'my/a\\x1bb\.txt' has the control character or line break U\+001B in its name"),
        ("my/a\u2028b.txt".encode(), r"'my/a\\u2028b\.txt' has the control character or line break U\+2028"),
    ],
)
def test_a_file_name_that_no_line_can_hold_is_refused_for_that(name: bytes, problem: str) -> None:
    pathlib.Path(os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"source mine: paths: {problem}") as error:
        run()
    assert str(error.value).encode()


@pytest.mark.parametrize(
    "name",
    [
        "no-break\u00a0space",
        "zero\u200djoiner",
        "soft\u00adhyphen",
        "\u202eright to left",
        "{b}",
        "[1]",
        "a*?",
        "é",
        "🙂 日本",
        "$x 'q'",
    ],
)
def test_any_other_name_is_allowed_and_a_path_that_exists_is_itself(name: str) -> None:
    put(f"{name}.txt", b"x")
    for paths in ((f"my/{name}.txt",), ("my/*.txt",)):
        assert run(*paths) == [Passage(f"my/{name}.txt", None, "x")]


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.txt.gz"])
def test_a_decompression_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(formats, "MAX_LINE_BYTES", 1 << 20)
    put(name, (zstandard.compress if name.endswith("zst") else gzip.compress)(bytes(64 << 20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"source mine: file my/a\..*1048576 bytes"):
        run()
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(here: pathlib.Path) -> None:
    options = Options(kind="files", paths=("my/*",))
    peaks = []
    for times in (1, 8):
        line = json.dumps({"text": "word " * 400}).encode() + b"\n"
        put("a.jsonl.gz", gzip.compress(line * 1000 * times, 1))
        fetch(options, "mine", here / "inventory", Shard())
        tracemalloc.start()
        pool = pa.default_memory_pool().bytes_allocated()
        assert sum(1 for _ in read(options, "mine", here / "inventory")) == 1000 * times
        peaks.append(tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().bytes_allocated() - pool)
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 4 << 20
