"""Test that bounds are inclusive, and that a text is cut where a reader would stop."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from speciate.data.clean.filters.length import Options, cut_text


def test_bounds_are_inclusive_and_count_characters(verdict) -> None:
    message = verdict("length", min_characters=2, max_characters=4)
    assert [message("ü" * length) for length in range(1, 6)] == ["too_short", "kept", "kept", "kept", "too_long"]


def test_no_upper_bound_by_default(verdict) -> None:
    assert verdict("length")("x" * 10**6) == "kept"


@pytest.mark.parametrize(
    ("text", "limit", "left"),
    [
        ("first line\nsecond line", 16, "first line"),
        ("first line\nsecond line", 10, "first line"),  # the newline itself may lie beyond the limit
        ("One two. Three four five", 15, "One two."),
        ("He said 'go.' And so they went.", 16, "He said 'go.'"),
        ("pi is 3.14159 and more", 11, "pi is"),  # a sentence does not end inside a number
        ("x\nabcdefghijklmno", 10, "x\nabcdefgh"),  # a line that ends in the first half ends too early
        ("abcdefghijkl", 10, "abcdefghij"),
        ("short", 10, "short"),
    ],
)
def test_where_a_text_is_cut(text: str, limit: int, left: str) -> None:
    assert cut_text(text, limit) == left


@given(st.text(alphabet="ab. \n", min_size=1, max_size=60), st.integers(2, 60))
def test_a_cut_text_is_a_beginning_no_longer_than_asked(text: str, limit: int) -> None:
    cut = cut_text(text, limit)
    assert text.startswith(cut) and len(cut) <= limit


@pytest.mark.parametrize("text", ["กำลังที่นี่มีน้ำ" * 3, "ကျောင်းသားများ" * 3, "किकीकुकू" * 6, "e\u0301\u0323" * 15])
def test_no_letter_is_cut_from_its_marks(text: str) -> None:
    cuts = [len(cut_text(text, limit)) for limit in range(12, 30)]
    assert len(set(cuts)) < len(cuts)
    assert all(not unicodedata.category(text[cut]).startswith("M") for cut in cuts)


def test_cutting_edits_and_the_bounds_hold_of_what_is_left(verdict) -> None:
    message = verdict("length", min_characters=9, cut_characters=12, max_characters=30)
    assert message("x" * 31) == "too_long"
    assert message("Ten chars. Then much more.") == "edited"
    assert message("Nine char\n xxxxxxxxxxxx") == "edited"
    assert message("Eight ch\n xxxxxxxxxxxx") == "too_short"
    assert message("exactly 12 c") == "kept"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_characters": 5, "max_characters": 4}, "max_characters: 4 is less than min_characters, 5"),
        ({"cut_characters": 9, "max_characters": 8}, "cut_characters: 9 is never reached"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Options(kind="length", **settings)
