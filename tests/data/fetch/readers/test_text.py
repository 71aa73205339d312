"""Test that a member is one text."""

import pytest

from speciate.data.fetch.readers.text import Options, read
from speciate.data.passage import Passage


def test_a_member_is_one_text() -> None:
    assert list(read(Options(kind="text"), "a.py", b"x = 1\n", "w")) == [Passage("a.py", None, "x = 1\n")]
    with pytest.raises(ValueError, match=r"source s: member a\.py is not UTF-8: byte 0xff at offset 0"):
        list(read(Options(kind="text"), "a.py", b"\xff", "source s: member a.py"))
