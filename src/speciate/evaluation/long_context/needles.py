"""Questions about sentences that are hidden in real text: needles in a haystack, and tracing variables.

The sentences and the question are our own words; the tasks are those of Kamradt's "Needle in a haystack" (2023) and of
RULER (Hsieh et al. 2024, arXiv 2404.06654): a single needle, several keys, several values of one key, several queries,
and variables that are set to each other.

A needle stands at a token boundary of the haystack. The context and the longest candidate together have exactly as many
tokens as the cell's length, so the question is always whole, and no token is beyond the model's context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speciate.data.needle_sentences import ask_number, code_of
from speciate.evaluation.long_context.answering import Answer, Question
from speciate.evaluation.long_context.haystack import Haystack
from speciate.evaluation.long_context.words import Lexicon, Speller, draw_distinct

LEAST_HAYSTACK = 16
"""Number of the haystack's tokens that a context has at least."""


@dataclass(frozen=True)
class Material:
    """What questions are made of."""

    haystack: Haystack
    lexicon: Lexicon
    speller: Speller
    num_choices: int
    """Number of candidates of each answer."""


@dataclass(frozen=True)
class Draft:
    """A question before it has a haystack."""

    needles: tuple[str, ...]
    """Sentences, in the order of the context."""
    question: str
    answers: tuple[str, ...]
    """Correct answers, in the order in which they are asked for."""
    wrong: tuple[tuple[str, ...], ...]
    """Wrong candidates of each answer, distinct."""
    leads: tuple[str, ...] = ()
    """Words before each answer but the first, which are given; none: a comma before each."""


def single(material: Material, draw: np.random.Generator) -> Draft:
    """Return a question about the only needle."""
    (key,), numbers = draw_distinct(material.lexicon.words, 1, draw), _numbers(material, draw)
    return Draft((code_of(key, numbers[0]),), ask_number(key), (numbers[0],), (tuple(numbers[1:]),))


def multi_key(material: Material, draw: np.random.Generator, *, num_needles: int) -> Draft:
    """Return a question about one of several needles with different keys; the others' numbers are candidates."""
    keys = draw_distinct(material.lexicon.words, num_needles, draw)
    numbers = _numbers(material, draw, more=num_needles)
    needles = [code_of(key, number) for key, number in zip(keys, numbers, strict=False)]
    asked = int(draw.integers(num_needles))
    wrong = [number for index, number in enumerate(numbers) if index != asked][: material.num_choices - 1]
    return Draft(tuple(needles), ask_number(keys[asked]), (numbers[asked],), (tuple(wrong),))


def multi_value(material: Material, draw: np.random.Generator, *, num_needles: int) -> Draft:
    """Return a question about all numbers of one key, in the order of the text."""
    (key,), numbers = draw_distinct(material.lexicon.words, 1, draw), _numbers(material, draw, more=num_needles)
    right, wrong = tuple(numbers[:num_needles]), tuple(numbers[num_needles:][: material.num_choices - 1])
    question = f" Question: Which numbers has {key}, in the order of the text? Answer: The numbers of {key} are"
    return Draft(tuple(code_of(key, number) for number in right), question, right, (wrong,) * num_needles)


def multi_query(material: Material, draw: np.random.Generator, *, num_needles: int) -> Draft:
    """Return a question about the numbers of several keys; the other keys' numbers are candidates."""
    keys = draw_distinct(material.lexicon.words, num_needles, draw)
    numbers = _numbers(material, draw, more=num_needles)
    needles = tuple(code_of(key, number) for key, number in zip(keys, numbers, strict=False))
    order = draw.permutation(num_needles)
    asked = [keys[index] for index in order]
    wrong = tuple(
        tuple(number for other, number in enumerate(numbers) if other != index)[: material.num_choices - 1]
        for index in order
    )
    question = f" Question: Which numbers have {', '.join(asked)}? Answer: The secret codes are {asked[0]}"
    leads = tuple(f", {key}" for key in asked[1:])
    return Draft(needles, question, tuple(numbers[index] for index in order), wrong, leads)


def variable_tracking(material: Material, draw: np.random.Generator, *, num_hops: int) -> Draft:
    """Return a question about all names that have a number by a chain of assignments; a second chain distracts."""
    length = num_hops + 1
    names = draw_distinct(material.lexicon.words, 2 * length + material.num_choices, draw)
    chains, others = (names[:length], names[length : 2 * length]), names[2 * length :]
    right, wrong = _numbers(material, draw)[:2]
    lines = [_assignments(chain, number) for chain, number in zip(chains, (right, wrong), strict=True)]
    # both chains in their own order, mixed
    turns = draw.permutation([0] * length + [1] * length)
    needles = tuple(lines[chain].pop(0) for chain in turns)
    question = f" Question: Which names have the number {right}? Answer: The names with the number {right} are"
    candidates = tuple([*chains[1], *others][: material.num_choices - 1])
    return Draft(needles, question, tuple(chains[0]), (candidates,) * length)


def hide(
    draft: Draft, length: int, material: Material, draw: np.random.Generator, *, depths: Sequence[float]
) -> Question:
    """Return the question with its needles in a haystack, `length` tokens with the longest candidate.

    Args:
        draft: the needles and what is asked.
        length: number of tokens of the context and the answers.
        material: the haystack and the tokenizer.
        draw: draws the place of the haystack and the order of the candidates.
        depths: ascending, a place for each needle: 0 before the haystack's first token, 1 behind its last.

    Raises:
        ValueError: needles, question and answers leave no room for a haystack.
    """
    needles = [material.speller.spell(needle) for needle in draft.needles]
    question = material.speller.spell(draft.question)
    answers = spell_answers(draft, material, draw)
    fixed = Question(tuple(question), answers).length + sum(map(len, needles))
    count = length - fixed
    if count < LEAST_HAYSTACK:
        raise ValueError(
            f"length {length} has no room: needles, question and answer take {fixed} tokens,"
            f" and the haystack needs {LEAST_HAYSTACK}"
        )
    hay, context, before = material.haystack.take(count, draw), list[int](), 0
    for needle, depth in zip(needles, depths, strict=True):
        place = round(depth * count)
        context += [*hay[before:place], *needle]
        before = place
    return Question((*context, *hay[before:], *question), answers)


def spell_answers(draft: Draft, material: Material, draw: np.random.Generator) -> tuple[Answer, ...]:
    """Return the tokens of the answers, with their candidates in a drawn order."""
    answers = []
    for index, (right, wrong) in enumerate(zip(draft.answers, draft.wrong, strict=True)):
        place = int(draw.integers(len(wrong) + 1))
        candidates = [*wrong[:place], right, *wrong[place:]]
        tokens = tuple(tuple(material.speller.spell(f" {candidate}")) for candidate in candidates)
        lead = (draft.leads[index - 1] if draft.leads else ",") if index else ""
        before = tuple(material.speller.spell(lead))
        answers.append(Answer(before, tokens, place))
    return tuple(answers)


def _numbers(material: Material, draw: np.random.Generator, more: int = 1) -> list[str]:
    """Return `more` different numbers, and as many as an answer has wrong candidates."""
    return draw_distinct(material.lexicon.numbers, more + material.num_choices - 1, draw)


def _assignments(chain: Sequence[str], number: str) -> list[str]:
    first = f" The number of {chain[0]} is {number}."
    return [
        first,
        *(f" The number of {name} is that of {former}." for former, name in zip(chain, chain[1:], strict=False)),
    ]
