"""The sentences of needles and of the questions about them, and made-up words; sources and tasks share them."""

import itertools

SYLLABLES = [f"{consonant}{vowel}" for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
MADE_UP = ["".join(pair) for pair in itertools.product(SYLLABLES, SYLLABLES)]
"""Words of two syllables."""
NUMBERS = [str(number) for number in range(1000, 10000)]


def number_of(key: str, number: str) -> str:
    """Return a needle: the sentence that gives a key its number."""
    return f" The secret number of {key} is {number}."


def ask_number(key: str) -> str:
    """Return the question about a key's number, up to the number."""
    return f" Question: What is the secret number of {key}? Answer: The secret number of {key} is"
