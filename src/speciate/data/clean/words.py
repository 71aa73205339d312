"""Words and sentences of a text in a language that separates words by spaces, by two regular expressions.

Decision: no language library. spaCy, which datatrove would load for its rules, splits words at a fiftieth of the speed
and brings 17 packages more, and the rules decide nearly all prose alike (docs/filters.md). Known faults: a sentence is
thought to end after "Mr."; Chinese or Thai text is one long word.
"""

import re

WORD = re.compile(r"(?:[^\W\d_]\.)+(?!\w)|\w+(?:[.,:]\w+|-\d+)*|['’]\w+|\.{2,}|[^\w\s]")
"""An abbreviation (U.S.), a word, a number (1,024.5), the end of a contraction, an ellipsis, a mark of punctuation."""
SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]|\n+")


def split_words(text: str) -> list[str]:
    """The words of `text` and its marks of punctuation, in order; together all of it but the white space."""
    return WORD.findall(text)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence begins and ends: half-open ranges that tile `text`. A line's end ends a sentence too."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return list(zip([0, *ends[:-1]], ends, strict=True))
