"""Test the texts that paths lead to in JSON, and the messages for what leads nowhere."""

import gzip
import json
from typing import Any

import pytest

from speciate.data.fetch.readers.json_tree import Options, read

TREE = {
    "problems": {
        "P1": {"text": "What?", "solution": {"steps": [{"text": "First."}, {"text": "Then."}]}},
        "P2": {"text": "Why?", "solution": {"steps": []}},
    },
    "hints": {},
}


def texts(data: bytes, **settings: Any) -> dict[str, str | None]:
    return {passage.id: passage.text for passage in read(Options(kind="json_tree", **settings), "v0.json", data, "w")}


def test_paths_lead_to_records_and_to_their_texts() -> None:
    paths = {"records": "problems.*", "text": ["text", "solution.steps.*.text"], "join": "\n"}
    expected = {"v0.json#P1": "What?\nFirst.\nThen.", "v0.json#P2": "Why?"}
    assert texts(json.dumps(TREE, indent=1).encode(), **paths) == expected
    assert texts(gzip.compress(json.dumps(TREE).encode()), **paths) == expected


def test_each_line_may_be_a_value() -> None:
    lines = b'{"a": "x", "b": "y"}\n\n{"a": "z", "b": "\\u00fc"}\n'
    assert texts(lines, text=["a", "b"]) == {"v0.json#1": "xy", "v0.json#3": "zü"}
    assert texts(b'["p", "q"]', records="*", text=[""]) == {"v0.json#0": "p", "v0.json#1": "q"}


@pytest.mark.parametrize(
    ("data", "settings", "says"),
    [
        (b"{", {"text": ["a"]}, "w: is not JSON: Expecting property name enclosed in double quotes at character 1"),
        (b'{"a": "x"}\n{"a"', {"text": ["a"]}, "w: line 2 is not JSON: Expecting ':' delimiter"),
        (b'{"a": 1}', {"text": ["a"]}, "w: : text: a leads to int, not text"),
        (b'{"a": [{"b": "x"}]}', {"records": "c.*", "text": ["b"]}, "w: records: c.* leads to nothing"),
        (b'{"a": [{"b": "x"}, {}]}', {"records": "a.*", "text": ["b"]}, "w: 1: text: b leads to nothing"),
        (gzip.compress(b'{"a": "x"}', mtime=0)[:-9], {"text": ["a"]}, "w is damaged or cut off: "),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as error:
        texts(data, **settings)
    assert str(error.value).startswith(says)
