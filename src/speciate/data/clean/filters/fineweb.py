"""FineWeb's own rules (Penedo et al. 2024), as datatrove implements them. For web text, not for code.

They catch lists: few lines that end in punctuation, mostly short lines, repeated lines, a line break every few words.
They miss bad text in whole paragraphs, and wrongly drop verse, dialogue and tables.
"""

import pathlib
from collections.abc import Mapping

from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from pydantic import Field

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.datatrove_rules import REGEX_TOKENIZER, apply_rules
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep documents of whole lines; the defaults are FineWeb's."""

    min_punctuated_lines: float = Field(0.12, ge=0, le=1)
    """Least share of lines that end in punctuation."""
    max_short_lines: float = Field(0.67, ge=0, le=1)
    """Greatest share of short lines."""
    short_line: int = Field(30, ge=1)
    """Greatest length of a short line, in characters."""
    max_duplicate_characters: float = Field(0.01, ge=0, le=1)
    """Greatest share of characters in repeated lines."""
    max_line_ends: float = Field(0.3, ge=0)
    """Greatest number of line breaks per word."""


class Filter:
    """Judge each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        self._rules = FineWebQualityFilter(
            line_punct_thr=options.min_punctuated_lines,
            short_line_thr=options.max_short_lines,
            short_line_length=options.short_line,
            char_duplicates_ratio=options.max_duplicate_characters,
            new_line_ratio=options.max_line_ends,
            language=REGEX_TOKENIZER,
        )
        short, repeated = options.max_short_lines, options.max_duplicate_characters
        self._reasons = {
            "line_punct_ratio": ("fineweb_punctuation", f"under {options.min_punctuated_lines} of the lines"),
            "short_line_ratio": ("fineweb_short_lines", f"over {short} of the lines"),
            "char_dup_ratio": ("fineweb_duplicate_lines", f"over {repeated} of the characters"),
            "list_ratio": ("fineweb_list", f"over {options.max_line_ends} line breaks a word"),
        }

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or why it is dropped (fineweb_...)."""
        return apply_rules(self._rules, self._reasons, document)
