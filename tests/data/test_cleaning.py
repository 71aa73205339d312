"""Texts become documents: normalised, filtered in order, every drop counted under its reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.cleaning import Counts, clean, normalise
from speciate.data.documents import Document, Passage
from speciate.kinds import component, options_of


def make(kind: str, **settings: object):
    options = options_of("data/filters", kind).model_validate({"kind": kind, **settings})
    return component(options).Filter(options)


@pytest.mark.parametrize(
    ("raw", "clean_text"),
    [
        ("  a\r\nb\rc \n\n", "a\nb\nc"),
        ("e\u0301", "é"),
        ("\ufeffx\x00y\x0c\tz\x7f\x85", "xy\tz"),
        ("    def f():\n        pass\n", "def f():\n        pass"),
        ("\x1b[0m", "[0m"),
        (" \x00 ", ""),
    ],
)
def test_normalise(raw: str, clean_text: str) -> None:
    assert normalise(raw) == clean_text


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_every_drop_has_its_reason() -> None:
    texts = ["a", "long enough", "long enough\n", "x" * 50, "\x00", "another text", "a"]
    filters = [make("length", min_characters=5, max_characters=20), make("exact_duplicate")]
    counts = Counts()
    passages = [Passage(f"p{index}", f"g{index % 2}", text) for index, text in enumerate(texts)]
    kept = list(clean("prose", "wiki", passages, filters, counts))
    assert kept == [
        Document("wiki/p1", "prose", "wiki/g1", "long enough"),
        Document("wiki/p5", "prose", "wiki/g1", "another text"),
    ]
    assert counts.as_json() == {
        "read": 7,
        "kept": 2,
        "bytes_read": 1 + 11 + 12 + 50 + 1 + 12 + 1,
        "bytes_kept": 11 + 12,
        "dropped": {"empty": 1, "exact_duplicate": 1, "too_long": 1, "too_short": 2},
    }


def test_without_filters_only_empty_texts_go() -> None:
    counts = Counts()
    kept = list(clean("d", "s", [Passage("1", "1", " \n"), Passage("2", "2", "x")], [], counts))
    assert [document.id for document in kept] == ["s/2"]
    assert counts.dropped == {"empty": 1}


def test_one_id_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="source s: two texts are called 1"):
        list(clean("d", "s", [Passage("1", "1", "x"), Passage("1", "1", "y")], [], Counts()))
