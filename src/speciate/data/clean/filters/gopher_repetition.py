"""Gopher's repetition rules (Rae et al. 2021, table A1), as datatrove implements them. For prose, never code.

They catch boilerplate, keyword spam and texts that loop: too large a part of the text in repeated lines, paragraphs or
n-grams. They miss paraphrase and repetition across documents (`duplicates` serves that purpose). They wrongly drop
refrains and tables.
"""

import pathlib
from collections.abc import Mapping

from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from pydantic import Field

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.datatrove_rules import REGEX_TOKENIZER, apply_rules
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep documents that do not repeat themselves; the defaults are the paper's."""

    duplicate_lines: float = Field(0.3, gt=0, le=1)
    """Greatest share of lines that repeat an earlier one."""
    duplicate_paragraphs: float = Field(0.3, gt=0, le=1)
    """Greatest share of paragraphs that repeat an earlier one."""
    duplicate_line_characters: float = Field(0.2, gt=0, le=1)
    """Greatest share of characters in repeated lines."""
    duplicate_paragraph_characters: float = Field(0.2, gt=0, le=1)
    """Greatest share of characters in repeated paragraphs."""
    top_2gram: float = Field(0.2, gt=0, le=1)
    """Greatest share of characters in the most common 2-gram of words."""
    top_3gram: float = Field(0.18, gt=0, le=1)
    """Greatest share of characters in the most common 3-gram of words."""
    top_4gram: float = Field(0.16, gt=0, le=1)
    """Greatest share of characters in the most common 4-gram of words."""
    duplicate_5gram: float = Field(0.15, gt=0, le=1)
    """Greatest share of characters in repeated 5-grams of words."""
    duplicate_6gram: float = Field(0.14, gt=0, le=1)
    """Greatest share of characters in repeated 6-grams of words."""
    duplicate_7gram: float = Field(0.13, gt=0, le=1)
    """Greatest share of characters in repeated 7-grams of words."""
    duplicate_8gram: float = Field(0.12, gt=0, le=1)
    """Greatest share of characters in repeated 8-grams of words."""
    duplicate_9gram: float = Field(0.11, gt=0, le=1)
    """Greatest share of characters in repeated 9-grams of words."""
    duplicate_10gram: float = Field(0.1, gt=0, le=1)
    """Greatest share of characters in repeated 10-grams of words."""


class Filter:
    """Judge each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        top = [(n, getattr(options, f"top_{n}gram")) for n in (2, 3, 4)]
        duplicate = [(n, getattr(options, f"duplicate_{n}gram")) for n in range(5, 11)]
        self._rules = GopherRepetitionFilter(
            dup_line_frac=options.duplicate_lines,
            dup_para_frac=options.duplicate_paragraphs,
            dup_line_char_frac=options.duplicate_line_characters,
            dup_para_char_frac=options.duplicate_paragraph_characters,
            top_n_grams=top,
            dup_n_grams=duplicate,
            language=REGEX_TOKENIZER,
        )
        lines, paragraphs = options.duplicate_line_characters, options.duplicate_paragraph_characters
        self._reasons = {
            "dup_line_frac": ("gopher_duplicate_lines", f"over {options.duplicate_lines} of the lines"),
            "dup_para_frac": ("gopher_duplicate_paragraphs", f"over {options.duplicate_paragraphs} of the paragraphs"),
            "dup_line_char_frac": ("gopher_duplicate_lines", f"over {lines} of the characters"),
            "dup_para_char_frac": ("gopher_duplicate_paragraphs", f"over {paragraphs} of the characters"),
            **{f"top_{n}_gram": (f"gopher_top_{n}gram", f"over {share} of the characters") for n, share in top},
            **{
                f"duplicated_{n}_n_grams": (f"gopher_duplicate_{n}gram", f"over {share} of the characters")
                for n, share in duplicate
            },
        }

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or why it is dropped (gopher_duplicate_..., gopher_top_...)."""
        return apply_rules(self._rules, self._reasons, document)
