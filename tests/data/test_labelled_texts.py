"""Test what is read as labelled texts: records and plain texts, their names, labels and groups, and what is refused."""

import gzip
import json
import pathlib

import pandas as pd
import pytest

from speciate.data.labelled_texts import TextColumns, read_texts
from speciate.data.reading_errors import ReadingError
from speciate.selection.text import Text

RECORDS = [
    {"key": "a", "body": "def f(): pass", "domain": "code", "from": "t1"},
    {"key": "b", "body": "one apple", "domain": "math", "from": "t2"},
    {"key": "c", "body": "  ", "domain": "math", "from": "t2"},
]
COLUMNS = TextColumns(text="body", label="domain", id="key", group="from")
EXPECTED = [Text("a", "def f(): pass", "code", "t1"), Text("b", "one apple", "math", "t2")]


def write_jsonl(path: pathlib.Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_records_have_the_columns_that_are_named(tmp_path: pathlib.Path, suffix: str) -> None:
    file = tmp_path / f"texts.{suffix}"
    if suffix == "parquet":
        pd.DataFrame(RECORDS).to_parquet(file)
    else:
        write_jsonl(file, RECORDS)
        if suffix.endswith("gz"):
            file.write_bytes(gzip.compress(file.read_bytes()))
    assert read_texts([str(file)], COLUMNS) == EXPECTED
    assert read_texts([str(tmp_path)], COLUMNS) == EXPECTED
    assert read_texts([f"{tmp_path}/*"], COLUMNS) == EXPECTED


def test_a_plain_text_is_a_document_labelled_by_its_folder(tmp_path: pathlib.Path) -> None:
    for name in ("law/one.txt", "law/two.txt", "verse/one.txt", "top.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    texts = read_texts([str(tmp_path)], TextColumns(label="topic"))
    assert {text.text: text.label for text in texts} == {
        "law/one.txt": "law",
        "law/two.txt": "law",
        "verse/one.txt": "verse",
        "top.txt": "",
    }
    assert len({text.document for text in texts}) == 4


def test_records_without_a_label_column_have_none_and_whole_numbers_are_labels(tmp_path: pathlib.Path) -> None:
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "one", "grade": 3}])
    assert [text.label for text in read_texts([str(tmp_path)], TextColumns())] == [""]
    assert [text.label for text in read_texts([str(tmp_path)], TextColumns(label="grade"))] == ["3"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (TextColumns(text="content"), "line 1: there is no column 'content'; available: key, body, domain, from"),
        (TextColumns(text="body", label="topic"), "line 1: there is no column 'topic'; available: key, body, domain"),
        (TextColumns(text="body", id="domain"), "two texts are named 'math'; name a column that tells them apart"),
    ],
)
def test_a_wrong_column_is_named_with_those_that_there_are(
    tmp_path: pathlib.Path, columns: TextColumns, message: str
) -> None:
    write_jsonl(tmp_path / "texts.jsonl", [*RECORDS, {**RECORDS[1], "key": "d"}])
    with pytest.raises((ValueError, ReadingError), match=message):
        read_texts([str(tmp_path)], columns)


def test_a_label_that_is_no_text_is_refused_by_line(tmp_path: pathlib.Path) -> None:
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "one", "label": ["a"]}])
    with pytest.raises(ReadingError, match=r"texts\.jsonl: line 1: column 'label' is the label but holds list"):
        read_texts([str(tmp_path)], TextColumns(label="label"))


def test_patterns_that_name_nothing_readable_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="names no file with texts"):
        read_texts([f"{tmp_path}/*.jsonl"], TextColumns())
    (tmp_path / "page.html").write_text("<p>")
    with pytest.raises(ValueError, match=r"page\.html: no text can be read from it; known are \.jsonl"):
        read_texts([f"{tmp_path}/*"], TextColumns())
    write_jsonl(tmp_path / "texts.jsonl", [{"text": " "}])
    with pytest.raises(ValueError, match="there is no text in it"):
        read_texts([str(tmp_path)], TextColumns())
