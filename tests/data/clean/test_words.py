"""Test words and sentences, the marks that stay together, and the known faults."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.clean.words import sentence_spans, split_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The U.S. has 1,024.5 km.", ["The", "U.S.", "has", "1,024.5", "km", "."]),
        ("It's (really) well-known…", ["It", "'s", "(", "really", ")", "well", "-", "known", "…"]),
        ("Wait... what?!", ["Wait", "...", "what", "?", "!"]),
        ("élan\u200bvital", ["élan", "\u200b", "vital"]),
        ("他们父辈", ["他们父辈"]),
        (" \n ", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert split_words(text) == expected


@given(st.text())
def test_words_hold_everything_but_white_space(text: str) -> None:
    assert "".join(split_words(text)) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", " Two!", " Three?"]),
        ("He said 'no.' Then he left", ["He said 'no.'", " Then he left"]),
        ("3.14 is pi", ["3.14 is pi"]),
        ("a line\nanother\n\n", ["a line\n", "another\n\n"]),
        ("他来了。他走了。", ["他来了。", "他走了。"]),
        ("Mr. Smith came.", ["Mr.", " Smith came."]),  # a known fault
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:stop] for start, stop in sentence_spans(text)] == expected


@given(st.text(alphabet="a. \n!。'"))
def test_sentences_tile_the_text(text: str) -> None:
    assert "".join(text[start:stop] for start, stop in sentence_spans(text)) == text
