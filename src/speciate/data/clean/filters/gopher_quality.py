"""Gopher's quality rules (Rae et al. 2021, section A1.1), as datatrove implements them. For English prose, never code.

They catch lists, tables, menus, symbol spam and texts without sentences. They miss fluent nonsense, and whatever is
well written but unwanted. They wrongly drop formulae, other languages and short answers.
"""

import pathlib
from collections.abc import Mapping

from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from pydantic import Field

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.datatrove_rules import REGEX_TOKENIZER, apply_rules
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep documents that look like prose; the defaults are the paper's."""

    min_words: int = Field(50, ge=1)
    """Fewest words, not counting punctuation marks."""
    max_words: int = Field(100_000, ge=1)
    """Most words, not counting punctuation marks."""
    min_word_length: float = Field(3, gt=0)
    """Least mean length of a word, in characters."""
    max_word_length: float = Field(10, gt=0)
    """Greatest mean length of a word, in characters."""
    max_symbol_ratio: float = Field(0.1, gt=0)
    """Greatest number of hashes, and of ellipses, per word."""
    max_bullet_lines: float = Field(0.9, gt=0, le=1)
    """Greatest share of lines that begin with a bullet."""
    max_ellipsis_lines: float = Field(0.3, gt=0, le=1)
    """Greatest share of lines that end with an ellipsis."""
    min_alphabetic_words: float = Field(0.8, gt=0, le=1)
    """Least share of words that hold a letter (punctuation marks count as words here)."""
    min_stop_words: int = Field(2, ge=0, le=8)
    """Fewest different words from: the, be, to, of, and, that, have, with."""


class Filter:
    """Judge each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        self._rules = GopherQualityFilter(
            min_doc_words=options.min_words,
            max_doc_words=options.max_words,
            min_avg_word_length=options.min_word_length,
            max_avg_word_length=options.max_word_length,
            max_symbol_word_ratio=options.max_symbol_ratio,
            max_bullet_lines_ratio=options.max_bullet_lines,
            max_ellipsis_lines_ratio=options.max_ellipsis_lines,
            max_non_alpha_words_ratio=options.min_alphabetic_words,
            min_stop_words=options.min_stop_words,
            language=REGEX_TOKENIZER,
        )
        symbols, alphabetic = options.max_symbol_ratio, options.min_alphabetic_words
        self._reasons = {
            "gopher_short_doc": ("gopher_few_words", f"under {options.min_words} words"),
            "gopher_long_doc": ("gopher_many_words", f"over {options.max_words} words"),
            "gopher_below_avg_threshold": ("gopher_short_words", f"mean under {options.min_word_length} characters"),
            "gopher_above_avg_threshold": ("gopher_long_words", f"mean over {options.max_word_length} characters"),
            "gopher_too_many_hashes": ("gopher_hashes", f"over {symbols} a word"),
            "gopher_too_many_ellipsis": ("gopher_ellipses", f"over {symbols} a word"),
            "gopher_too_many_bullets": ("gopher_bullets", f"over {options.max_bullet_lines} of the lines"),
            "gopher_too_many_end_ellipsis": ("gopher_end_ellipses", f"over {options.max_ellipsis_lines} of the lines"),
            "gopher_below_alpha_threshold": ("gopher_not_alphabetic", f"under {alphabetic} of the words"),
            "gopher_enough_stop_words": ("gopher_stop_words", f"under {options.min_stop_words}"),
        }

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or why it is dropped (gopher_...)."""
        return apply_rules(self._rules, self._reasons, document)
