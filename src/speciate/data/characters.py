"""Classify characters by Unicode's properties: what words are made of, in every script.

Letters, digits and the combining marks after them make words (UAX #29, "Unicode Text Segmentation"; UTS #18, annex C).
So a vowel sign or a virama stays in its word. Some scripts are written without spaces. There every letter, with its
marks, is a unit of its own, and two such units count as one word: a run of n words is a run of 2n such letters.

Decision: no dictionary finds the words of such scripts. Dictionaries exist for few of these languages, disagree with
each other, and split a copied passage differently where its surroundings differ.
"""

import enum
import functools
import re
from typing import Any

SPACELESS_SCRIPTS = (
    *("Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Tangut", "Nushu", "Khitan_Small_Script"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom"),
    *("Javanese", "Balinese"),
)
"""Scripts that put no space between words."""
LETTERS_IN_WORD = 2
"""Letters of such a script that count as one word."""
SPACELESS = r"[[\p{L}\p{Nl}]&&[\p{scx=Han}\p{scx=Hira}\p{" + r"}\p{".join(SPACELESS_SCRIPTS) + "}]]"
"""A letter of such a script, as a set for `regex` with its flag V1; scx adds what several of them share, such as ー."""
UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that are not shown (Default_Ignorable_Code_Point), such as soft hyphens and joiners: they end no word.

The zero-width space, which separates words in Khmer and Thai, is not one of them."""


class CharacterKind(enum.IntEnum):
    """What a character beyond ASCII does to the words around it."""

    SEPARATOR = 0
    """It stands between words."""
    LETTER = 1
    """A letter or digit: it belongs to a word."""
    MARK = 2
    """It belongs to the character before it."""
    SPACELESS = 3
    """A letter of a script without spaces: a unit of its own."""
    UNSEEN = 4
    """It is passed over."""


@functools.cache
def property_pattern(set_: str) -> Any:
    """Compile a set of `regex`'s version 1: one character of it."""
    # not at the top: stages that only pass texts on, such as the card's, run without this package
    import regex

    return regex.compile(f"(?V1){set_}")


@functools.cache
def character_kind(character: str) -> CharacterKind:
    """Return the kind of one character."""
    if UNSEEN.match(character):
        return CharacterKind.UNSEEN
    if property_pattern(SPACELESS).match(character):
        return CharacterKind.SPACELESS
    if property_pattern(r"[\p{L}\p{N}]").match(character):
        return CharacterKind.LETTER
    return CharacterKind.MARK if property_pattern(r"\p{M}").match(character) else CharacterKind.SEPARATOR


def is_visible(text: str) -> bool:
    """Tell whether `text` holds a character that is shown: not white space, a control, or a zero-width character."""
    return property_pattern(r"[^\s\p{Cc}\p{DI}\u2800\ufff9-\ufffb]").search(text) is not None
