"""Test words and sentences, the marks that stay together, and the known faults."""

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.clean.words import SENTENCE_END, WORD, sentence_spans, split_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The U.S. has 1,024.5 km.", ["The", "U.S.", "has", "1,024.5", "km", "."]),
        ("It's (really) well-known…", ["It", "'s", "(", "really", ")", "well", "-", "known", "…"]),
        ("Wait... what?!", ["Wait", "...", "what", "?", "!"]),
        ("élan\u200bvital", ["élan", "\u200b", "vital"]),
        ("他们的父辈，在iPhone上。", ["他们", "的父", "辈", "，", "在", "iPhone", "上", "。"]),
        ("नदी के किनारे १,०२४ पुल।", ["नदी", "के", "किनारे", "१,०२४", "पुल", "।"]),
        ("கி.மு. நூல் U.S. ", ["கி.மு.", "நூல்", "U.S."]),
        ("ที่กำลังมา", ["ที่ก", "ำลั", "งม", "า"]),
        ("ကျောင်းသား", ["ကျောင်း", "သား"]),
        ("می‌خواهم extra\u00adordinary ☀️!", ["می‌خواهم", "extra\u00adordinary", "☀️", "!"]),
        ("e\u0301lan x\u0323-1 \u0301", ["e\u0301lan", "x\u0323-1", "\u0301"]),
        (" \n ", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert split_words(text) == expected


@given(st.lists(st.text(alphabet="aZéß9_.,:-'’! \n", min_size=1)))
def test_a_mark_or_ideograph_elsewhere_changes_no_other_word(parts: list[str]) -> None:
    plain = " ".join(parts)
    assert split_words(f"{plain} 字") == [*WORD.findall(plain), "字"]
    assert split_words(f"{plain} कि") == [*WORD.findall(plain), "कि"]


def test_the_marks_that_end_sentences_are_unicodes() -> None:
    marks = {chr(code) for code in range(0x10000) if SENTENCE_END.fullmatch(chr(code))} - {"\n", "…"}
    assert all(regex.fullmatch(r"\p{STerm}", mark) for mark in marks) and len(marks) > 20


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
        ("他说：「来了。」他走了！", ["他说：「来了。」", "他走了！"]),
        ("वह आया। वह गया॥", ["वह आया।", " वह गया॥"]),
        ("هل أتى؟ نعم۔", ["هل أتى؟", " نعم۔"]),
        ("គាត់មក។គាត់ទៅ។", ["គាត់មក។", "គាត់ទៅ។"]),
        ("သူလာသည်။သူသွားသည်။", ["သူလာသည်။", "သူသွားသည်။"]),
        ("Mr. Smith came.", ["Mr.", " Smith came."]),  # a known fault
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:stop] for start, stop in sentence_spans(text)] == expected


@given(st.text(alphabet="a. \n!。'"))
def test_sentences_tile_the_text(text: str) -> None:
    assert "".join(text[start:stop] for start, stop in sentence_spans(text)) == text
