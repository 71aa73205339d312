"""Split text into words and sentences by two regular expressions, for languages that separate words by spaces.

Decision: no language library. spaCy, which datatrove would load for its rules, splits words at a fiftieth of the speed
and needs 17 more packages, and the rules decide nearly all prose alike (docs/filters.md). Known faults: a sentence
seems to end after "Mr.", and Chinese or Thai text is one long word.
"""

import re

WORD = re.compile(r"(?:[^\W\d_]\.)+(?!\w)|\w+(?:[.,:]\w+|-\d+)*|['’]\w+|\.{2,}|[^\w\s]")
"""An abbreviation (U.S.), a word, a number (1,024.5), the end of a contraction, an ellipsis, a punctuation mark."""
SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]|\n+")


def split_words(text: str) -> list[str]:
    """Return the words and punctuation marks of `text` in order; together they are all of it but the white space."""
    return WORD.findall(text)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the half-open range of each sentence; the ranges tile `text`, and a line's end ends a sentence too."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return list(zip([0, *ends[:-1]], ends, strict=True))
