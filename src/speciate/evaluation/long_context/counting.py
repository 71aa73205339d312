"""Questions about which words a list repeats most: common and frequent words of RULER (Hsieh et al. 2024).

    common words     n words stand 10 r times in the list, all others r times; r is as small as the lexicon allows
    frequent words   the word of rank k stands floor(c k^-1.5) times; c is as large as the length allows

The list is shuffled, and its words are spelled each by itself, so its tokens are those of its words. The context and
the longest candidate have at most as many tokens as the cell's length.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from speciate.evaluation.long_context.answering import Question
from speciate.evaluation.long_context.needles import Draft, Material, spell_answers
from speciate.evaluation.long_context.words import draw_distinct

RATIO = 10
"""How often a common word stands for each time that another does."""
INTRODUCTION = " Words:"
POWER = 1.5
"""How fast the number of a frequent word falls with its rank."""


def common_words(length: int, material: Material, draw: np.random.Generator, *, num_words: int) -> Question:
    """Return a question about the `num_words` commonest words, in the order of their first places.

    Raises:
        ValueError: a list of this length cannot repeat so many words.
    """
    words = draw_distinct(material.lexicon.words, len(material.lexicon.words), draw)
    question = f" Question: Which {num_words} words come most often, first come first? Answer: The words are"
    room, size = _room(length, question, words, num_words, material=material)
    counts: dict[str, int] = {}
    repeats = 1
    while room > 0 and len(counts) < len(words):  # where the lexicon fills no list, its words stand more often
        counts = _common_counts(words, num_words, repeats, size, room=room)
        if len(counts) < len(words):
            break
        repeats, counts = repeats + 1, {}
    if len(counts) < num_words + material.num_choices - 1:
        raise ValueError(_too_short(length, num_words))
    listed = _shuffle(counts, draw)
    asked = sorted(words[:num_words], key=listed.index)
    return _question(listed, question, asked, list(counts)[num_words:], material=material, draw=draw)


def frequent_words(length: int, material: Material, draw: np.random.Generator, *, num_words: int) -> Question:
    """Return a question about the `num_words` most frequent words, the most frequent first.

    Raises:
        ValueError: in a list of this length the numbers of these words do not differ.
    """
    words = draw_distinct(material.lexicon.words, len(material.lexicon.words), draw)
    question = f" Question: Which {num_words} words come most often, by falling number? Answer: The words are"
    room, size = _room(length, question, words, num_words, material=material)
    size_W = np.array([size[word] for word in words])
    share_W = np.arange(1, len(words) + 1) ** -POWER
    low, high = 0, max(1, room + 1)
    while high - low > 1:  # the largest number of the first word with which the list has room
        middle = (low + high) // 2
        fits = int((np.floor(middle * share_W) * size_W).sum()) <= room
        low, high = (middle, high) if fits else (low, middle)
    counts = {word: int(count) for word, count in zip(words, np.floor(low * share_W), strict=True) if count}
    falling = list(counts.values())[: num_words + 1]
    if len(counts) < num_words + material.num_choices - 1 or len(set(falling)) < num_words + 1:
        raise ValueError(_too_short(length, num_words))
    asked, others = list(counts)[:num_words], list(counts)[num_words:]
    return _question(_shuffle(counts, draw), question, asked, others, material=material, draw=draw)


def _common_counts(
    words: Sequence[str], num_words: int, repeats: int, size: Mapping[str, int], *, room: int
) -> dict[str, int]:
    """Return how often each word stands: the first `num_words` RATIO times as often as the others that have room."""
    counts = dict.fromkeys(words[:num_words], RATIO * repeats)
    left = room - sum(size[word] * count for word, count in counts.items())
    for word in words[num_words:]:
        if size[word] * repeats > left:
            break
        counts[word] = repeats
        left -= size[word] * repeats
    return counts


def _room(
    length: int, question: str, words: Sequence[str], num_words: int, *, material: Material
) -> tuple[int, dict[str, int]]:
    """Return how many tokens the list may have, and the number of tokens of each word.

    Any of the first `num_words` words may be asked for last, and then compete with the longest word of all.
    """
    spell = material.speller.spell
    size = {word: len(spell(f" {word}")) for word in words}
    answers = sum(size[word] for word in words[:num_words]) + (num_words - 1) * len(spell(","))
    return length - len(spell(INTRODUCTION)) - len(spell(question)) - answers - max(size.values()), size


def _question(
    listed: Sequence[str],
    question: str,
    asked: Sequence[str],
    others: Sequence[str],
    *,
    material: Material,
    draw: np.random.Generator,
) -> Question:
    """Return the question after its list; the wrong candidates are other words of the list."""
    spell = material.speller.spell
    wrong = tuple(draw_distinct(tuple(others), material.num_choices - 1, draw))
    draft = Draft((), question, tuple(asked), (wrong,) * len(asked))
    context = [*spell(INTRODUCTION), *(token for word in listed for token in spell(f" {word}")), *spell(question)]
    return Question(tuple(context), spell_answers(draft, material, draw))


def _shuffle(counts: Mapping[str, int], draw: np.random.Generator) -> list[str]:
    every = [word for word, count in counts.items() for _ in range(count)]
    return [every[index] for index in draw.permutation(len(every))]


def _too_short(length: int, num_words: int) -> str:
    return f"length {length} is too short for a list in which {num_words} words stand out"
