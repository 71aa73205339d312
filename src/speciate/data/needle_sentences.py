"""The sentences of needles and of the questions about them, and made-up words; sources and tasks share them."""

import itertools

SYLLABLES = [f"{consonant}{vowel}" for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
MADE_UP = ["".join(pair) for pair in itertools.product(SYLLABLES, SYLLABLES)]
"""Words of two syllables."""
NUMBERS = [str(number) for number in range(1000, 10000)]


def code_of(key: str, number: str) -> str:
    """Return a needle: the sentence that gives a key its number."""
    return f" The secret code is {key} {number}."


def ask_number(key: str) -> str:
    """Return the question about a key's number, up to the number."""
    return f" Question: Which number has {key}? Answer: The secret code is {key}"
