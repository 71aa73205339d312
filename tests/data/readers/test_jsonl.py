"""One text a line, and a line that is wrong is named."""

import pytest

from speciate.data.documents import Passage
from speciate.data.readers.jsonl import Options, read


def run(data: str, **settings: str) -> list[Passage]:
    return list(read(Options(kind="jsonl", **settings), "m", data.encode(), "source s: member m"))  # type: ignore[arg-type]


def test_lines_are_texts() -> None:
    assert run('{"0": "a\\nb"}\n\n{"0": "c"}\n', key="0") == [Passage("m:1", "m:1", "a\nb"), Passage("m:3", "m:3", "c")]


def test_a_key_can_group() -> None:
    assert [passage.group for passage in run('{"text": "a", "g": 7}\n{"text": "b", "g": "x"}', group="g")] == ["7", "x"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 has no text under 'text'"),
        ('{"text": 3}', "line 2 has no text under 'text'"),
        ('{"text": "\\ud800"}', "line 2 holds half a surrogate pair"),
        ('{"text": "x"}', "line 2 has no group under 'g'"),
    ],
)
def test_a_bad_line_is_named(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"source s: member m: {problem}"):
        run('{"text": "ok", "g": "a"}\n' + line, group="g")
