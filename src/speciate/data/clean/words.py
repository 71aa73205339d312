"""Split text into words and sentences by regular expressions.

Decision: no language library. spaCy, which datatrove would load for its rules, splits words at a fiftieth of the speed
and needs 17 more packages, and the rules decide nearly all prose alike (docs/filters.md). Known faults: a sentence
seems to end after "Mr."; Thai, which marks no sentence's end, is one sentence a line.

Combining marks belong to the letter before them. In a script without spaces (data/characters.py) two letters in a row
are a word, as where runs of words are compared.
"""

import functools
import re
from typing import Any

from speciate.data.characters import LETTERS_IN_WORD, SPACELESS, UNSEEN, CharacterKind, character_kind, property_pattern

WORD = re.compile(r"(?:[^\W\d_]\.)+(?!\w)|\w+(?:[.,:]\w+|-\d+)*|['’]\w+|\.{2,}|[^\w\s]")
"""An abbreviation (U.S.), a word, a number (1,024.5), the end of a contraction, an ellipsis, a punctuation mark."""
CLOSING = "\"'”’)\\]»）」』》"
SENTENCE_END = re.compile(rf"[.!?…‼⁇⁈⁉。！？．｡।॥؟۔։።፧។៕။]+[{CLOSING}]*(?=\s|$)|[。！？｡។៕။]+[{CLOSING}]*|\n+")
"""Marks that end a sentence before white space, marks that do so anywhere, and the end of a line."""
_PLAIN_KINDS = (CharacterKind.SEPARATOR, CharacterKind.LETTER)


@functools.cache
def _wide_word() -> Any:
    """Return `WORD` for texts with combining marks or with letters of scripts without spaces."""
    extend = rf"[\p{{M}}{UNSEEN.pattern[1:-1]}]*+"
    letter, word = (rf"[[{set_}]--{SPACELESS}]{extend}" for set_ in (r"\p{L}\p{Nl}\p{No}", r"\p{L}\p{N}_"))
    lone = rf"{SPACELESS}{extend}"
    return property_pattern(
        rf"(?:{letter}\.)+(?!{word})|(?:{lone}){{1,{LETTERS_IN_WORD}}}|(?:{word})+(?:[.,:](?:{word})+|-\p{{Nd}}+)*"
        rf"|['’](?:{word})+|\.{{2,}}|[^\s\x1c-\x1f]{extend}"
    )


def split_words(text: str) -> list[str]:
    """Return the words and punctuation marks of `text` in order; together they are all of it but the white space."""
    if text.isascii() or all(character_kind(each) in _PLAIN_KINDS for each in set(text) if each > "\x7f"):
        return WORD.findall(text)
    words: list[str] = _wide_word().findall(text)
    return words


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the half-open range of each sentence; the ranges tile `text`, and a line's end ends a sentence too."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return list(zip([0, *ends[:-1]], ends, strict=True))
