"""Test that each line of a member is a text."""

import pytest

from speciate.data.fetch.readers.lines import Options, read
from speciate.data.passage import Passage


def test_each_line_is_a_text() -> None:
    found = list(read(Options(kind="lines"), "news.cor", "one – news\r\n\n  \nanother".encode(), "w"))
    assert found == [Passage("news.cor#1", None, "one – news"), Passage("news.cor#4", None, "another")]
    assert found[1].place == "line 4"
    with pytest.raises(ValueError, match=r"w is not UTF-8: byte 0xff at offset 2"):
        list(read(Options(kind="lines"), "news.cor", b"a\n\xff", "w"))
