"""Drop documents outside a range of lengths: stubs without content, and files that are data rather than text.

It can cut instead of dropping. A text longer than `cut_characters` is cut at the last line end before that limit, else
at the last sentence end, else at the last space. Where all of these lie in the first half, the text is cut mid-word,
but never between a letter and its combining marks.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from speciate.config.contracts.data import FilterOptions
from speciate.data.characters import CharacterKind, character_kind
from speciate.data.clean.pipeline import Drop
from speciate.data.clean.words import SENTENCE_END
from speciate.data.documents import Document


class Options(FilterOptions):
    """Keep documents of a certain length."""

    min_characters: int = Field(1, ge=1)
    """Length of the shortest document kept, in characters."""
    max_characters: int | None = Field(None, ge=1)
    """Length of the longest document kept, in characters; null: no limit."""
    cut_characters: int | None = Field(None, ge=2)
    """Length to which longer documents are cut, in characters; null: none is cut."""

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        limits = (("max_characters", self.max_characters), ("cut_characters", self.cut_characters))
        for key, limit in limits:
            if limit is not None and limit < self.min_characters:
                raise ValueError(f"{key}: {limit} is less than min_characters, {self.min_characters}")
        if self.max_characters and self.cut_characters and self.cut_characters > self.max_characters:
            raise ValueError(
                f"cut_characters: {self.cut_characters} is never reached: max_characters drops such documents"
            )
        return self


class Filter:
    """Judge each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or its beginning, or why it is dropped (too_short, too_long)."""
        options, length = self.options, len(document.text)
        if options.max_characters is not None and length > options.max_characters:
            return Drop("too_long", f"{length} characters")
        if options.cut_characters is not None and length > options.cut_characters:
            document = dataclasses.replace(document, text=cut_text(document.text, options.cut_characters))
        if len(document.text) < options.min_characters:
            return Drop("too_short", f"{len(document.text)} characters")
        return document


def cut_text(text: str, limit: int) -> str:
    """Return the longest beginning of `text` of at most `limit` characters that ends where a reader would stop."""
    line_end = text.rfind("\n", 0, limit + 1)
    sentence_ends = [
        match.end() for match in SENTENCE_END.finditer(text, limit // 2, limit + 1) if match.end() <= limit
    ]
    space = text.rfind(" ", 0, limit + 1)
    for cut in (line_end, sentence_ends[-1] if sentence_ends else -1, space):
        if cut >= limit // 2:
            return text[:cut].rstrip()
    cut = limit
    while limit // 2 < cut < len(text) and character_kind(text[cut]) in (CharacterKind.MARK, CharacterKind.UNSEEN):
        cut -= 1
    return text[:cut].rstrip()
