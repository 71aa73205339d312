"""Runs the quality rules that datatrove implements (Penedo et al. 2024) on our documents, with our words.

Decision: datatrove's own classes judge, so that a rule is what its users know; words and sentences are ours (`words`),
through the interface that datatrove has for that. Texts beyond 4 million characters are dropped unjudged: the rules
hold every word and every run of words of a text at once.
"""

import dataclasses
from collections.abc import Mapping

from datatrove.data import Document as Text
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.utils.word_tokenizers import WordTokenizer

from speciate.data.clean.pipeline import Drop
from speciate.data.clean.words import sentence_spans, split_words
from speciate.data.documents import Document

MAX_CHARACTERS = 4_000_000
"""Characters; some 600 MB while it is judged."""


class RegexTokenizer(WordTokenizer):  # type: ignore[misc]  # datatrove has no types
    """`speciate.data.clean.words`, in datatrove's shape."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of `text`."""
        return split_words(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """The sentences of `text`."""
        return [text[start:stop].strip() for start, stop in sentence_spans(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where the sentences of `text` are."""
        return sentence_spans(text)


REGEX_TOKENIZER = RegexTokenizer()
"""One for all filters: datatrove remembers the words of the last texts by it."""


def apply_rules(rules: BaseFilter, reasons: Mapping[str, tuple[str, str]], document: Document) -> Document | Drop:
    """What datatrove's `rules` say of `document`: itself, a copy with the text they leave of it, or a drop.

    Args:
        rules: a filter of datatrove.
        reasons: its reason -> ours, and what it means with these thresholds.
        document: not empty.
    """
    if len(document.text) > MAX_CHARACTERS:
        return Drop("too_long_to_judge", f"{len(document.text)} characters")
    text = Text(text=document.text, id=document.id)
    verdict = rules.filter(text)
    if verdict is True:
        return document if text.text == document.text else dataclasses.replace(document, text=text.text)
    return Drop(*reasons[verdict[1]])
