"""Drops documents outside a range of lengths: stubs that hold no content, and files that are data rather than text."""

from pydantic import Field

from speciate.data.documents import Document
from speciate.kinds import Kind


class Options(Kind):
    """Keeps documents of a certain length."""

    min_characters: int = Field(1, ge=1)
    """Shortest document kept."""
    max_characters: int | None = Field(None, ge=1)
    """Longest document kept; none: any."""


class Filter:
    """One pass over one domain."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def reason(self, document: Document) -> str | None:
        """Why `document` is dropped, or None to keep it."""
        if len(document.text) < self.options.min_characters:
            return "too_short"
        if self.options.max_characters is not None and len(document.text) > self.options.max_characters:
            return "too_long"
        return None
