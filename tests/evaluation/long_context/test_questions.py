"""Test the generated questions: a program that reads the text alone solves all of them; none is too long."""

import re
from collections import Counter

import numpy as np
import pytest
from tests.evaluation.long_context.material import material, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from speciate.evaluation.long_context.answering import Question
from speciate.evaluation.long_context.haystack import Haystack
from speciate.evaluation.long_context.needles import hide, single
from speciate.evaluation.long_context.words import Speller, read_lexicon
from speciate.evaluation.task.ruler import Options, make

VARIANTS = Options.model_fields["variants"].default


def solve(variant: str, text: str) -> list[str]:
    """Return the answers to the question at the end of `text`, by patterns and counting."""
    body, question = text.rsplit(" Question: ", 1)
    if variant.endswith("words"):
        listed = body.split("Words:")[1].split()
        count = int(re.search(r"Which (\d+) words", question)[1])
        commonest = [word for word, _ in Counter(listed).most_common(count)]
        return sorted(commonest, key=listed.index) if variant == "common_words" else commonest
    if variant == "variable_tracking":
        number = re.search(r"have the number (\d+)\?", question)[1]
        known: dict[str, str] = {}
        pattern = r"The number of (\w+) is (?:(\d+)|that of (\w+))\."
        for name, value, former in re.findall(pattern, body):
            known[name] = value or known[former]
        return [name for name, value in known.items() if value == number]
    keys = re.search(r"Which numbers? ha(?:s|ve) ([\w, ]+?)(?:\?|, in the order)", question)[1].split(", ")
    pairs = re.findall(r"The secret code is (\w+) (\d+)\.", body)
    return [value for key in keys for name, value in pairs if name == key]


def answers_of(question: Question, spoken: Tokenizer) -> list[str]:
    return [spoken.decode(list(answer.candidates[answer.correct])).strip() for answer in question.answers]


@pytest.mark.parametrize("entries", [257, 1024])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_program_that_reads_the_text_alone_is_always_right(variant: str, entries: int) -> None:
    options, spoken = Options(kind="ruler"), tokenizer(entries)
    for length in (640, 1500, 6000):
        for number in range(6):
            draw = np.random.default_rng([number, length])
            question = make(variant, length, options, material(entries), draw=draw)
            assert question.length <= length
            if not variant.endswith("words"):
                assert question.length == length
            assert question.length > 0.9 * length
            text = spoken.decode(list(question.context), skip_special_tokens=False)
            assert re.search(r" Question: .*\? Answer: The [\w\s,]+ (is|are)( \w+)?$", text)
            assert solve(variant, text) == answers_of(question, spoken)
            for answer in question.answers:
                assert len(set(answer.candidates)) == len(answer.candidates) == 8
            assert "<|endoftext|>" not in text


@pytest.mark.parametrize("variant", VARIANTS)
def test_wrong_candidates_are_wrong(variant: str) -> None:
    """No wrong candidate is an answer to the same question, and those of hard variants stand in the text."""
    spoken = tokenizer(1024)
    question = make(variant, 900, Options(kind="ruler"), material(1024), draw=np.random.default_rng(5))
    text, right = spoken.decode(list(question.context)), set(answers_of(question, spoken))
    in_text = 0
    for answer in question.answers:
        wrong = [candidate for place, candidate in enumerate(answer.candidates) if place != answer.correct]
        words = {spoken.decode(list(candidate)).strip() for candidate in wrong}
        asked_together = right if variant != "multi_query" else set()
        assert not words & asked_together
        in_text += sum(word in text.split("Question:")[0] for word in words)
    expected = {"single": 0, "multi_key": 3, "multi_value": 0, "multi_query": 4 * 3, "variable_tracking": 4 * 4}
    assert in_text >= expected.get(variant, 3 * 7)


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_the_needle_stands_at_its_depth(depth: float) -> None:
    drawn, made = material(1024), np.random.default_rng(2)
    draft = single(drawn, made)
    question = hide(draft, 500, drawn, made, depths=[depth])
    needle, asked = drawn.speller.spell(draft.needles[0]), drawn.speller.spell(draft.question)
    assert list(question.context[-len(asked) :]) == asked
    count = len(question.context) - len(needle) - len(asked)
    place = round(depth * count)
    assert list(question.context[place : place + len(needle)]) == needle
    hay = [*question.context[:place], *question.context[place + len(needle) : -len(asked)]]
    twice = np.concatenate((drawn.haystack.token_N, drawn.haystack.token_N)).tolist()
    assert any(twice[start : start + count] == hay for start in range(len(drawn.haystack.token_N)))


def test_a_text_that_is_shorter_than_the_context_is_repeated() -> None:
    taken = Haystack(np.arange(100)).take(250, np.random.default_rng(0))
    assert len(taken) == 250
    assert all((after - before) % 100 == 1 for before, after in zip(taken, taken[1:], strict=False))


def test_what_does_not_fit_is_said() -> None:
    drawn, made = material(257), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"length 100 has no room: needles, question and answer take \d+ tokens"):
        make("single", 100, Options(kind="ruler"), drawn, draw=made)
    for variant in ("common_words", "frequent_words"):
        with pytest.raises(ValueError, match="length 100 is too short for a list in which 3 words stand out"):
            make(variant, 100, Options(kind="ruler"), drawn, draw=made)


def test_a_tokenizer_that_spells_no_numbers_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="tokenizer: cannot spell '1000 "):
        read_lexicon(Haystack(np.ones(64, np.int64)), Speller(words))


def test_where_the_text_has_too_few_words_some_are_made_up() -> None:
    speller = Speller(tokenizer(257))
    hay = Haystack(np.array(speller.spell("the cat and the dog " * 8)))
    words = read_lexicon(hay, speller).words
    assert words[:4] == ("the", "and", "cat", "dog")
    assert len(words) == len(set(words)) > 2000
