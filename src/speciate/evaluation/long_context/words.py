"""Words and numbers that a tokenizer can spell, for questions that are generated.

Words come from the text that the model knows, the most frequent first. Where it has too few, words of two syllables
are made up. All of them, and every sentence of a question, come back from the tokenizer as they went in.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from speciate.data.needle_sentences import MADE_UP, NUMBERS
from speciate.evaluation.long_context.haystack import Haystack

LEAST_WORDS = 512


@dataclass(frozen=True)
class Speller:
    """Text to tokens and back."""

    tokenizer: Tokenizer

    def can_spell(self, text: str) -> bool:
        """Tell whether the text comes back from its tokens, but for capitals and the space around it."""
        return str(self.tokenizer.decode(self._ids(text))).strip().lower() == text.strip().lower()

    def spell(self, text: str) -> list[int]:
        """Return the tokens of `text`. Raise ValueError if the tokenizer cannot spell it."""
        if not self.can_spell(text):
            raise ValueError(f"tokenizer: cannot spell {text.strip()!r}, which the questions are made of")
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


@dataclass(frozen=True)
class Lexicon:
    """What questions are made of."""

    words: tuple[str, ...]
    """Distinct words of small letters, by falling frequency."""
    numbers: tuple[str, ...]
    """Distinct numbers of four digits."""


def read_lexicon(haystack: Haystack, speller: Speller) -> Lexicon:
    """Return the words of a haystack, and numbers. Raise ValueError if the tokenizer can spell no numbers."""
    text = speller.tokenizer.decode(haystack.token_N.tolist())
    counts = Counter(re.findall(r"(?<![\w'])[a-z]{3,9}(?![\w'])", text))
    known = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in known if speller.can_spell(f" {word}")]
    if len(words) < LEAST_WORDS:
        words += [word for word in MADE_UP if word not in counts and speller.can_spell(f" {word}")]
    speller.spell(" " + " ".join(NUMBERS[:: len(NUMBERS) // 16]))
    return Lexicon(tuple(words), tuple(NUMBERS))


def draw_distinct(pool: tuple[str, ...], count: int, draw: np.random.Generator) -> list[str]:
    """Return `count` different entries of the pool, in random order. Raise ValueError if it has fewer."""
    if count > len(pool):
        raise ValueError(f"the questions need {count} different words, and there are {len(pool)}")
    return [pool[index] for index in draw.choice(len(pool), count, replace=False)]
