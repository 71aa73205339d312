"""Run the quality rules that datatrove implements (Penedo et al. 2024) on our documents, with our word splitter.

Decision: datatrove's own classes judge, so that each rule is the one its users know. Words and sentences are ours
(`words`), passed through datatrove's tokenizer interface. Texts beyond 4 million characters are dropped without
judgement: the rules hold every word and every n-gram of a text at once.
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
"""Longest text that is judged, in characters; judging it takes some 600 MB."""


class RegexTokenizer(WordTokenizer):  # type: ignore[misc]  # datatrove has no types
    """`speciate.data.clean.words` behind datatrove's interface."""

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words of `text`."""
        return split_words(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the sentences of `text`."""
        return [text[start:stop].strip() for start, stop in sentence_spans(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return the start and end of each sentence of `text`."""
        return sentence_spans(text)


REGEX_TOKENIZER = RegexTokenizer()
"""Shared by all filters, because datatrove caches the words of recent texts per tokenizer."""


def apply_rules(rules: BaseFilter, reasons: Mapping[str, tuple[str, str]], document: Document) -> Document | Drop:
    """Return `document`, a copy with the text that the rules leave of it, or a drop.

    Args:
        rules: a filter of datatrove.
        reasons: datatrove's reason -> our reason, and what it means with these thresholds.
        document: a document that is not empty.
    """
    if len(document.text) > MAX_CHARACTERS:
        return Drop("too_long_to_judge", f"{len(document.text)} characters")
    text = Text(text=document.text, id=document.id)
    verdict = rules.filter(text)
    if verdict is True:
        return document if text.text == document.text else dataclasses.replace(document, text=text.text)
    return Drop(*reasons[verdict[1]])
