"""C4's rules (Raffel et al. 2020, section 2.2), as datatrove implements them: lines are removed, and whole documents.

A line stays if it ends in punctuation, has a few words, and speaks of neither JavaScript nor cookies; citations like
[12] are cut out of it. A document goes that holds a curly bracket or "lorem ipsum" in such a line, or has too few
sentences left. It leaves web pages without their menus; it drops code whole, and headings, verse, dialogue without
closing marks and lists line by line. C4's list of bad words is not part of it (`toxicity` is for that).
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
    """Keeps the prose of web pages; the defaults are C4's."""

    terminal_punctuation: bool = True
    """Remove lines that do not end with . ? ! or a quotation mark."""
    min_sentences: int = Field(5, ge=1)
    """Fewest sentences left in a document."""
    min_words_in_line: int = Field(3, ge=1)
    """Fewest words of a line."""
    max_word_length: int = Field(1000, ge=1)
    """Lines with a longer word are removed."""
    citations: bool = True
    """Cut out marks of citations, like [12] and [edit]."""
    lorem_ipsum: bool = True
    """Drop documents with lorem ipsum."""
    javascript: bool = True
    """Remove lines that mention JavaScript."""
    curly_bracket: bool = True
    """Drop documents with a curly bracket."""
    policy: bool = True
    """Remove lines about cookies, terms of use and privacy."""


class Filter:
    """Looks at one document by itself."""

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
        """`document` without the lines removed, or why it is dropped (c4_...)."""
        return apply_rules(self._rules, self._reasons, document)
