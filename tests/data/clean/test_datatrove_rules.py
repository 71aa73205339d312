"""Test datatrove's rules on our documents: their results are converted to ours."""

import dataclasses

import pytest

from speciate.data.clean import datatrove_rules
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document

DOCUMENT = Document("s/1", "d", "s/g", "some text")


class Rules:
    def __init__(self, verdict: object, left: str | None = None) -> None:
        self.verdict, self.left = verdict, left

    def filter(self, text) -> object:
        assert (text.id, text.text) == ("s/1", "some text")
        text.text = self.left or text.text
        return self.verdict


def test_kept_edited_and_dropped() -> None:
    reasons = {"theirs": ("ours", "why")}
    assert datatrove_rules.apply_rules(Rules(True), reasons, DOCUMENT) is DOCUMENT
    assert datatrove_rules.apply_rules(Rules(True, "text"), reasons, DOCUMENT) == dataclasses.replace(
        DOCUMENT, text="text"
    )
    assert datatrove_rules.apply_rules(Rules((False, "theirs")), reasons, DOCUMENT) == Drop("ours", "why")


def test_a_huge_text_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datatrove_rules, "MAX_CHARACTERS", 8)
    assert datatrove_rules.apply_rules(Rules(None), {}, DOCUMENT) == Drop("too_long_to_judge", "9 characters")


def test_words_and_sentences_are_ours() -> None:
    assert datatrove_rules.REGEX_TOKENIZER.word_tokenize("It is.") == ["It", "is", "."]
    assert datatrove_rules.REGEX_TOKENIZER.sent_tokenize("It is. So be it") == ["It is.", "So be it"]
    assert datatrove_rules.REGEX_TOKENIZER.span_tokenize("It is. So be it") == [(0, 6), (6, 15)]
