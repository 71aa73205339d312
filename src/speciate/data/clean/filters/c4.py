"""C4's rules (Raffel et al. 2020, section 2.2), as datatrove implements them: they remove lines and whole documents.

A line stays if it ends in punctuation, has a few words, and mentions neither JavaScript nor cookies; citations like
[12] are cut out of it. A document is dropped if such a line holds a curly bracket or "lorem ipsum", or if too few
sentences are left. The rules leave web pages without their menus. They drop code whole, and headings, verse, dialogue
without closing marks and lists line by line. C4's list of bad words is not included (`toxicity` serves that purpose).
"""

import pathlib
from collections.abc import Mapping

from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from pydantic import Field

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.datatrove_rules import REGEX_TOKENIZER, apply_rules
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep the prose of web pages; the defaults are C4's."""

    terminal_punctuation: bool = True
    """Whether to remove lines that do not end with . ? ! or a quotation mark."""
    min_sentences: int = Field(5, ge=1)
    """Fewest sentences that must be left in a document."""
    min_words_in_line: int = Field(3, ge=1)
    """Fewest words in a line that is kept."""
    max_word_length: int = Field(1000, ge=1)
    """Longest word in a line that is kept, in characters."""
    citations: bool = True
    """Whether to cut out citation marks, such as [12] and [edit]."""
    lorem_ipsum: bool = True
    """Whether to drop documents with lorem ipsum."""
    javascript: bool = True
    """Whether to remove lines that mention JavaScript."""
    curly_bracket: bool = True
    """Whether to drop documents with a curly bracket."""
    policy: bool = True
    """Whether to remove lines about cookies, terms of use and privacy."""


class Filter:
    """Judge each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        self._rules = C4QualityFilter(
            filter_no_terminal_punct=options.terminal_punctuation,
            min_num_sentences=options.min_sentences,
            min_words_per_line=options.min_words_in_line,
            max_word_length=options.max_word_length,
            remove_citations=options.citations,
            filter_lorem_ipsum=options.lorem_ipsum,
            filter_javascript=options.javascript,
            filter_curly_bracket=options.curly_bracket,
            filter_policy=options.policy,
            language=REGEX_TOKENIZER,
        )
        self._reasons = {
            "too_few_sentences": ("c4_few_sentences", f"under {options.min_sentences} are left"),
            "curly_bracket": ("c4_curly_bracket", "in a line of prose"),
            "lorem_ipsum": ("c4_lorem_ipsum", ""),
        }

    def apply(self, document: Document) -> Document | Drop:
        """Return `document` without the removed lines, or why it is dropped (c4_...)."""
        return apply_rules(self._rules, self._reasons, document)
