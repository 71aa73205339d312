"""Count formatting artefacts of a domain: what its documents share that is not language.

If all documents of a domain begin alike, a router can recognise the domain by its first tokens, a shortcut. So the
audit counts white space at either end, control and invisible characters by name, first characters, and beginnings and
ends of 16 or more characters that many documents share. It runs on the texts as they come and again on what is kept.
All counts add up over sources and shards, and memory is bounded.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from speciate.data.card.heavy_hitters import HeavyHitters

INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, save tab and newline
    "\u00a0\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\ufff9-\ufffd\uffa0\U000e0000-\U000e007f]"
)
"""Control characters, special spaces, zero-width marks, tags, and the replacement character of a failed decoding."""
END_CHARACTERS = 16
"""Characters at which beginnings, or ends, of documents are compared."""
MAX_PREFIX_CHARACTERS = 200
"""Longest part of a shared beginning that is kept, in characters."""


def character_name(character: str) -> str:
    """Return `character` as 'U+200B ZERO WIDTH SPACE'; control characters have no names of their own."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'CONTROL')}"


@dataclass
class Audit:
    """Additive counts over documents."""

    documents: int = 0
    leading_space: int = 0
    """Documents that begin with white space."""
    trailing_space: int = 0
    """Documents that end with white space."""
    unseen: Counter[str] = field(default_factory=Counter)
    """Control and invisible characters, by name."""
    unseen_documents: Counter[str] = field(default_factory=Counter)
    """Documents that hold at least one of them, by name."""
    first: HeavyHitters = field(default_factory=HeavyHitters)
    """First characters."""
    prefixes: HeavyHitters = field(default_factory=HeavyHitters)
    """Beginnings of documents of at least 16 characters."""
    suffixes: HeavyHitters = field(default_factory=HeavyHitters)
    """Ends of such documents, exactly 16 characters each."""

    def add(self, text: str) -> None:
        self.documents += 1
        self.leading_space += text[:1].isspace()
        self.trailing_space += text[-1:].isspace()
        if invisible := Counter(INVISIBLE.findall(text)):
            named = {character_name(character): count for character, count in sorted(invisible.items())}
            self.unseen.update(named)
            self.unseen_documents.update(named.keys())
        if text:
            self.first.add(text[0], text[0])
        if len(text) >= END_CHARACTERS:
            self.prefixes.add(text[:END_CHARACTERS], text[:MAX_PREFIX_CHARACTERS])
            self.suffixes.add(text[-END_CHARACTERS:], text[-END_CHARACTERS:])

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, key) + getattr(other, key) for key in self.__dataclass_fields__))

    def as_json(self) -> dict[str, Any]:
        """Return plain data: names in alphabetical order, and the most common of the rest."""
        return {
            "documents": self.documents,
            "leading_space": self.leading_space,
            "trailing_space": self.trailing_space,
            "unseen": dict(sorted(self.unseen.items())),
            "unseen_documents": dict(sorted(self.unseen_documents.items())),
            "first": self.first.as_json(),
            "prefixes": self.prefixes.as_json(),
            "suffixes": self.suffixes.as_json(),
        }

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Self:
        """Return the audit that `as_json` wrote; `HeavyHitters.below` bounds the counts left out there."""
        numbers = [written[key] for key in ("documents", "leading_space", "trailing_space")]
        names = [Counter(written[key]) for key in ("unseen", "unseen_documents")]
        return cls(
            *numbers, *names, *(HeavyHitters.from_json(written[key]) for key in ("first", "prefixes", "suffixes"))
        )
