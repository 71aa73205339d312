"""Test how texts become documents: normalised, filtered in order, drops counted by reason and edits by kind."""

import dataclasses
import functools
import operator
import tracemalloc
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.config.components import ComponentOptions, component_module, options_of
from speciate.data.clean import pipeline
from speciate.data.clean.dropped import DroppedSamples
from speciate.data.clean.pipeline import CleaningCounts, Drop, clean_passages, normalise
from speciate.data.documents import Document
from speciate.data.passage import Passage


def make(kind: str, **settings: object):
    options = options_of("data/clean/filters", kind).model_validate({"kind": kind, **settings})
    return component_module(options).Filter(options, {})


class Shout:
    """Edit texts that begin with a lower-case letter."""

    options = ComponentOptions(kind="shout")

    def apply(self, document: Document) -> Document | Drop:
        return dataclasses.replace(document, text=document.text.upper())


class Erase(Shout):
    options = ComponentOptions(kind="erase")

    def apply(self, document: Document) -> Document | Drop:
        return dataclasses.replace(document, text="")


NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


@pytest.mark.parametrize(
    ("raw", "clean_text"),
    [
        ("  a\r\nb\rc \n\n", "a\nb\nc"),
        ("e\u0301", "é"),
        ("\ufeffx\x00y\x0c\tz\x7f\x85", "xy\n\tz"),
        ("page one.\fChapter two", "page one.\nChapter two"),
        ("one\x0btwo\x1cthree\x1dfour\x1efive\x85six\u2028seven\u2029eight", "\n".join(NUMBERS)),
        ("name\x1fvalue", "name value"),
        ("import os\n\f\nclass A:", "import os\n\nclass A:"),
        ("end.\n\fNext", "end.\nNext"),
        ("one\x85\x85two\r\n\r\nthree", "one\n\ntwo\n\nthree"),
        ("don\x92t \x93well\x94\x97known\x81", "don’t “well”—known"),
        ("    def f():\n        pass\n", "    def f():\n        pass"),
        ("\n \n    x = 1\n    y = 2\n", "    x = 1\n    y = 2"),
        ("\u3000他来了。\n\u3000他走了。", "\u3000他来了。\n\u3000他走了。"),
        (" One line only.\nAnd another.\n   \n", "One line only.\nAnd another."),
        ("\x1b[0m", "[0m"),
        (" \x00 ", ""),
    ],
)
def test_normalise(raw: str, clean_text: str) -> None:
    assert normalise(raw) == clean_text


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_every_character_that_separates_still_does() -> None:
    # str.splitlines and str.isspace say what separates
    for character in filter(str.isspace, map(chr, range(0x110000))):
        text = normalise(f"one{character}two")
        assert text.split() == ["one", "two"], hex(ord(character))
        assert len(text.splitlines()) == len(f"one{character}two".splitlines()), hex(ord(character))


@given(st.text())
def test_nothing_that_is_shown_is_lost(text: str) -> None:
    shown = [character for character in text if unicodedata.category(character) not in ("Cc", "Zs", "Zl", "Zp")]
    expected = unicodedata.normalize("NFC", "".join(shown).replace("\ufeff", ""))
    controls = "".join(character for character in text if "\x80" <= character < "\xa0")
    result = "".join(normalise(text).split())
    if not controls:
        assert sorted(unicodedata.normalize("NFD", result)) == sorted(unicodedata.normalize("NFD", expected))


@pytest.mark.parametrize(
    "text", ["\u200b", "\ufeff\u200b\u200d", "\u00ad \u2060\n\u200e", "\u3164", "\u2800\u2800", "\U000e0041", "\ufe0f"]
)
def test_a_text_that_shows_nothing_is_empty(text: str) -> None:
    counts = CleaningCounts()
    passages = [Passage("1", "1", text), Passage("2", "2", f"{text}.")]
    kept = clean_passages("d", "s", passages, [], counts=counts, samples=DroppedSamples())
    assert [document.id for document in kept] == ["s/2"]
    assert counts.dropped == {"empty": 1}


def test_every_drop_has_its_reason() -> None:
    texts = ["a", "long enough", "long enough\n", "x" * 50, "\x00", "another text", None, "\ud800x", "lower"]
    counts, samples = CleaningCounts(), DroppedSamples()
    passages = [Passage(f"p{index}", f"g{index % 2}", text) for index, text in enumerate(texts)]
    passages.append(Passage("p9", "g1", None, fault="not_json"))
    filters = [make("length", min_characters=5, max_characters=20), Shout()]
    kept = list(clean_passages("prose", "wiki", passages, filters, counts=counts, samples=samples))
    assert kept == [
        Document("wiki/p1", "prose", "g1", "LONG ENOUGH"),
        Document("wiki/p2", "prose", "g0", "LONG ENOUGH"),
        Document("wiki/p5", "prose", "g1", "ANOTHER TEXT"),
        Document("wiki/p8", "prose", "g0", "LOWER"),
    ]
    written = counts.as_json()
    assert {key: written[key] for key in written if key != "audit"} == {
        "read": 10,
        "kept": 4,
        "bytes_read": 1 + 11 + 12 + 50 + 1 + 12 + 4 + 5,
        "bytes_kept": 11 + 11 + 12 + 5,
        "dropped": {"empty": 1, "lone_surrogate": 1, "not_json": 1, "null": 1, "too_long": 1, "too_short": 1},
        "edited": {"shout": 4},
    }
    assert (written["audit"]["raw"]["documents"], written["audit"]["clean"]["documents"]) == (7, 4)
    rows = {row["reason"]: row for row in samples.table().to_pylist()}
    assert rows["too_short"] == {
        "reason": "too_short",
        "filter": "length",
        "note": "1 characters",
        "id": "wiki/p0",
        "characters": 1,
        "text": "a",
    }
    assert rows["lone_surrogate"]["note"] == "U+D800 at character 0" and rows["lone_surrogate"]["text"] == "\\ud800x"
    assert rows["not_json"]["filter"] == "clean"


def test_an_edit_is_counted_once_a_kind_and_only_of_what_is_kept() -> None:
    counts = CleaningCounts()
    passages = [Passage("1", "1", "small"), Passage("2", "2", "BIG"), Passage("3", "3", "x" * 30)]
    filters = [Shout(), Shout(), make("length", max_characters=20)]
    assert [
        document.text
        for document in clean_passages("d", "s", passages, filters, counts=counts, samples=DroppedSamples())
    ] == [
        "SMALL",
        "BIG",
    ]
    assert counts.edited == {"shout": 1}


def test_a_text_of_which_a_filter_leaves_nothing_is_empty() -> None:
    counts, samples = CleaningCounts(), DroppedSamples()
    assert (
        list(clean_passages("d", "s", [Passage("1", "1", "x")], [Erase(), Shout()], counts=counts, samples=samples))
        == []
    )
    assert counts.dropped == {"empty": 1}
    assert samples.table().to_pylist()[0]["filter"] == "erase"


def test_without_filters_only_empty_texts_go() -> None:
    counts = CleaningCounts()
    kept = list(
        clean_passages(
            "d", "s", [Passage("1", "1", " \n"), Passage("2", "2", "x")], [], counts=counts, samples=DroppedSamples()
        )
    )
    assert [document.id for document in kept] == ["s/2"]
    assert counts.dropped == {"empty": 1}


def test_a_huge_text_is_dropped_unless_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_CHARACTERS", 100)
    counts, samples = CleaningCounts(), DroppedSamples()
    passages = [Passage("1", "1", "x" * 101), Passage("2", "2", "x" * 100)]
    assert [document.id for document in clean_passages("d", "s", passages, [], counts=counts, samples=samples)] == [
        "s/2"
    ]
    assert counts.dropped == {"too_large": 1}
    assert samples.table().to_pylist()[0]["note"] == "101 characters"
    cut = list(
        clean_passages(
            "d", "s", passages, [make("length", cut_characters=50)], counts=CleaningCounts(), samples=DroppedSamples()
        )
    )
    assert [len(document.text) for document in cut] == [50, 50]


@given(st.lists(st.text(max_size=40), max_size=12), st.integers(0, 12))
def test_counts_of_parts_add_up(texts: list[str], cut: int) -> None:
    def counted(passages: list[Passage]) -> CleaningCounts:
        counts = CleaningCounts()
        list(
            clean_passages(
                "d", "s", passages, [Shout(), make("length", min_characters=3)], counts=counts, samples=DroppedSamples()
            )
        )
        return counts

    passages = [Passage(str(index), "g", text) for index, text in enumerate(texts)]
    parts = [counted(passages[:cut]), counted(passages[cut:])]
    reference = counted(passages).as_json()
    assert functools.reduce(operator.add, parts).as_json() == reference
    # counts that were read from the shards' files also add up, as long as the files list all different texts
    assert (
        CleaningCounts.from_json(parts[0].as_json()) + CleaningCounts.from_json(parts[1].as_json())
    ).as_json() == reference


def test_memory_does_not_grow_with_the_number_of_documents() -> None:
    def passages(number: int) -> Iterator[Passage]:
        for index in range(number):
            yield Passage(f"id{index}", f"id{index}", f"{index} is the number that this text is about " * 3)

    def peak(number: int) -> int:
        tracemalloc.start()
        filters = [make("length", min_characters=140), make("part", index=0, of=2)]
        for _ in clean_passages("d", "s", passages(number), filters, counts=CleaningCounts(), samples=DroppedSamples()):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(10)
    assert peak(6000) < 1.5 * peak(1500)


def test_a_group_is_the_users_or_else_the_text() -> None:
    """A group has one name in all sources and spellings; without one, equal texts are one, edited or not."""
    passages = [
        Passage("a", "Jos\u00e9", "X"),
        Passage("b", "Jose\u0301", "Y"),
        Passage("c", None, "same"),
        Passage("d", None, "SAME"),
        Passage("e", None, "other"),
    ]
    groups = [
        [
            document.group
            for document in clean_passages(
                "d", source, passages, [Shout()], counts=CleaningCounts(), samples=DroppedSamples()
            )
        ]
        for source in ("one", "two")
    ]
    assert groups[0] == groups[1]
    jose, again, same, shouted, other = groups[0]
    assert jose == again == "Jos\u00e9"
    assert same == shouted != other
