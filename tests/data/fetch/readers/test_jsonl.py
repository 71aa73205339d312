"""Test one record per line and the error for a bad line; test_records tests how a record becomes a passage."""

from typing import Any

import pytest

from speciate.data.fetch.readers.jsonl import Options, read
from speciate.data.passage import Passage


def run(data: str, **settings: Any) -> list[Passage]:
    return list(read(Options(kind="jsonl", **settings), "m", data.encode(), "source s: member m"))


def test_lines_are_texts() -> None:
    result = run('{"0": "a\\nb"}\n\n{"0": "c"}\n', text="0")
    assert result == [Passage("m#1", None, "a\nb"), Passage("m#3", None, "c")]


def test_keys_name_and_group() -> None:
    result = run('{"text": "a", "g": 7, "n": "x"}\n{"text": "b", "g": "x", "n": 3}', group="g", id="n")
    assert [(passage.id, passage.group) for passage in result] == [("x", "7"), ("3", "x")]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: is not JSON: Expecting property name enclosed in double quotes at character 1"),
        ("[1]", "line 2: is not a JSON object but list"),
        ('{"text": 3, "g": 1}', "line 2: column 'text' holds int, not text"),
        ('{"text": "\\ud800", "g": 1}', "line 2: column 'text' holds half a surrogate pair at character 0"),
        ('{"text": "x"}', "line 2: there is no column 'g'; available: text"),
    ],
)
def test_a_bad_line_is_named(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"source s: member m: {problem}"):
        run('{"text": "ok", "g": "a"}\n' + line, group="g")


def test_bad_lines_can_be_dropped_under_their_fault() -> None:
    result = run('{\n{"text": "ok"}\n{"text": "\\udc00"}', bad_records="drop")
    assert [(passage.text, passage.fault) for passage in result] == [
        (None, "not_json"),
        ("ok", None),
        (None, "surrogate"),
    ]


def test_marks_and_bytes_that_are_not_utf8_concern_one_line() -> None:
    data = b'\xef\xbb\xbf{"text": "a"}\n\xef\xbb\xbf{"text": "b"}\n{"text": "\xff"}\n{"content": "c"}'
    options = Options(kind="jsonl", bad_records="drop")
    assert [(each.id, each.text, each.fault) for each in read(options, "m", data, "w")] == [
        ("m#1", "a", None),
        ("m#2", "b", None),
        ("m#3", None, "not_utf8"),
        ("m#4", None, "no_column"),
    ]
    with pytest.raises(ValueError, match=r"^w: there is no column 'text'; available: content$"):
        list(read(options, "m", b'{"content": "c"}\n', "w"))
    with pytest.raises(ValueError, match=r"^w looks like UTF-16LE, not UTF-8: convert it"):
        list(read(options, "m", '{"text": "a"}\n'.encode("utf-16-le"), "w"))
