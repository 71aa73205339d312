"""Test that a record becomes a passage by the study's columns, or an error that says what is wrong with it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.data.fetch.readers.jsonl import Options
from speciate.data.fetch.records import BadRecord, RecordParser, parse_json_line
from speciate.data.passage import Passage


def records(**settings: Any) -> RecordParser:
    return RecordParser(Options(kind="jsonl", **settings), "s")


def passage(record: dict[str, Any] | BadRecord, **settings: Any) -> Passage:
    return records(**settings).to_passage(record, "f#1", "source s: f: row 1")


def test_the_row_is_the_id_and_nothing_the_group_unless_columns_are() -> None:
    record = {"text": "a", "k": "one", "g": 7}
    assert passage(record) == Passage("f#1", None, "a")
    assert passage(record, id="k") == Passage("one", None, "a")
    assert passage(record, id="k", group="g") == Passage("one", "7", "a")


def test_a_template_joins_columns() -> None:
    record = {"question": "2+2?", "answer": "4", "text": "no"}
    assert passage(record, text="{question}\n\n{answer}").text == "2+2?\n\n4"
    assert passage(record, text="Problem: {question} {{so}}").text == "Problem: 2+2? {so}"
    assert records(text="{question}{answer}{question}", id="question").columns == ("question", "answer")


@settings(deadline=None)
@given(st.text(), st.text())
def test_what_a_column_holds_is_never_read_as_a_template(question: str, answer: str) -> None:
    actual = passage({"q": question + "{q}", "a": answer}, text="{q}|{a}").text
    assert actual == f"{question}{{q}}|{answer}"


def test_null_is_no_text_and_no_fault() -> None:
    assert passage({"text": None}) == Passage("f#1", None, None)
    assert passage({"a": "x", "b": None}, text="{a}{b}") == Passage("f#1", None, None)


@pytest.mark.parametrize("text", ["{", "}", "{}", "{{}}", "{a!r}", "{a:>9}", "{a"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"source s: text: .* is not a template of columns"):
        records(text=text)


def test_a_column_that_no_record_has_is_an_error_of_the_study() -> None:
    lacking = [{"content": "a", "id": 1}, BadRecord("not_json", "x"), {"content": "b", "k\nl": 2}]
    with pytest.raises(ValueError, match=r"^s: f: there is no column 'text'; available: content, id, 'k\\nl'$"):
        records(bad_records="drop").check_some_record(lacking, "s: f")
    with pytest.raises(ValueError, match=r"^s: f: no record has all of the columns content, k$"):
        records(text="content", id="k").check_some_record([{"content": "a"}, {"k": "b"}], "s: f")
    records(bad_records="drop").check_some_record([*lacking, {"text": "c"}], "s: f")


@pytest.mark.parametrize(
    ("record", "fault", "problem"),
    [
        (
            {"content": "a", "id": 1},
            "no_column",
            "there is no column 'text'; available: content, id$",
        ),
        (
            {f"c{index}": 0 for index in range(1000)},
            "no_column",
            "there is no column 'text'; available: c0, .*, c39, and 960 more$",
        ),
        ({"text": "привет, мир".encode("utf-16-le").decode()}, "not_utf8", "column 'text' looks like UTF-16LE"),
        (
            parse_json_line(b'{"text": "a", "n": {"k": 1, "k": 2}, "text": "b"}'),
            "repeated_key",
            "has the key 'text' more than once",
        ),
        ({"text": 3}, "no_text", "column 'text' holds int, not text"),
        ({"text": ["a"]}, "no_text", "column 'text' holds list, not text"),
        ({"text": b"a"}, "no_text", "column 'text' holds bytes, not text"),
        ({"text": "ab\ud83d"}, "surrogate", "column 'text' holds half a surrogate pair at character 2"),
        ({"text": "a", "k": None}, "no_id", "column 'k' is its id but holds nothing"),
        ({"text": "a", "k": 1.5}, "no_id", "column 'k' is its id but holds float"),
        ({"text": "a", "k": True}, "no_id", "column 'k' is its id but holds bool"),
        ({"text": "a", "k": "\udfff"}, "surrogate", "column 'k' holds half a surrogate pair at character 0"),
        (parse_json_line(b'{"text": "a"'), "not_json", "is not JSON: Expecting ',' delimiter at character 12"),
        (parse_json_line(b"3"), "not_json", "is not a JSON object but int"),
        (parse_json_line(b'\xef\xbb\xbf{"text": "\xff"}'), "not_utf8", "is not UTF-8: byte 0xff at offset 13"),
        (parse_json_line(b'{"text": "\xff"}'), "not_utf8", "is not UTF-8: byte 0xff at offset 10"),
        (parse_json_line(b"[" * 100_000), "not_json", "is not JSON that can be read"),
        (parse_json_line(b'{"a": ' + b"9" * 5000 + b"}"), "not_json", "is not JSON that can be read"),
    ],
)
def test_a_bad_record_is_named_or_dropped_under_its_fault(record: Any, fault: str, problem: str) -> None:
    chosen = {"id": "k"} if isinstance(record, dict) and "k" in record else {}
    with pytest.raises(ValueError, match=f"^source s: f: row 1: {problem}"):
        passage(record, **chosen)
    assert passage(record, **chosen, bad_records="drop") == Passage("f#1", None, None, fault)


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.integers())))
def test_any_record_gives_text_that_can_be_written_or_a_reason(record: dict[str, Any]) -> None:
    result = passage({"text": "x", **record}, bad_records="drop")
    assert (result.text is None) == (result.fault is not None or record.get("text", "x") is None)
    if result.text is not None:
        result.text.encode()
