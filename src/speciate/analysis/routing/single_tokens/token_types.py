"""The type of a token by its text: word, number, punctuation, ..."""

import re
from collections.abc import Sequence

import numpy as np

from speciate.analysis.draws import Integers

TYPES: tuple[tuple[str, str], ...] = (
    ("special", r"<[|/]?[^<>\s]+[|]?>|\[[A-Z]+\]"),
    ("space", r"\s+"),
    ("number", r"\s*[+-]?\d[\d.,_]*"),
    ("bracket", r"\s*[()\[\]{}]+"),
    ("punctuation", r"\s*[.,;:!?'\"`´‘’“”…–—-]+"),
    ("symbol", r"\s*[^\w\s]+"),
    ("capitalised word", r"\s+[A-Z][\w'’]*"),
    ("word", r"\s+[a-z_][\w'’]*"),
    ("part of a word", r"[A-Za-z_][\w'’]*"),
    ("other script", r"\s*[^\W\d_]+"),
)
"""Type of a token -> regular expression of its whole text; the first that matches counts."""
OTHER = "other"
NAMES = (*(name for name, _ in TYPES), OTHER)
_PATTERNS = [re.compile(pattern, re.ASCII if "a-z" in pattern.lower() else 0) for _, pattern in TYPES]
_MARKS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t"})


def type_of(piece: str) -> int:
    """Return the type of a token's text, as an index into `NAMES`; -1 for an empty text."""
    text = piece.translate(_MARKS)
    if not text:
        return -1
    for place, pattern in enumerate(_PATTERNS):
        if pattern.fullmatch(text):
            return place
    return len(_PATTERNS)


def types_of(pieces_V: Sequence[str]) -> Integers:
    """Return the type of each text."""
    return np.array([type_of(piece) for piece in pieces_V], dtype=np.int64)
