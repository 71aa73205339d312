"""Test what scoring by sentence catches, what it misses, and why it does not score by document."""

import numpy as np
import pytest
from profanity_check import predict_prob

from speciate.data.clean.filters.toxicity import MAX_SENTENCE_CHARACTERS, ToxicityScorer, split_sentences
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document

INSULT = "You are a fucking idiot and everybody knows it."


def test_our_scores_are_the_packages(prose: str) -> None:
    texts = [INSULT, "die", "", "nice day", *split_sentences(prose)]
    np.testing.assert_allclose(ToxicityScorer().score(texts), predict_prob(texts), rtol=0, atol=1e-12)


def test_prose_and_code_stay(verdict, prose: str, code: str) -> None:
    message = verdict("toxicity", max_sentences=0)
    assert message(prose) == "kept" and message(code) == "kept"


def test_a_document_hides_what_a_sentence_shows(make, prose: str) -> None:
    text = f"{prose}\n{INSULT}\n{prose}"
    assert ToxicityScorer().score([text])[0] < 0.5  # the document as a whole is harmless
    drop = make("toxicity", max_sentences=0).apply(Document("", "", "", text))
    assert drop == Drop("toxic", f"1 of {len(split_sentences(text))} sentences; 1.00: {INSULT}")


def test_share_and_number_decide(verdict, prose: str) -> None:
    mostly = f"{INSULT} {INSULT} {prose}"
    sentences = len(split_sentences(mostly))
    assert verdict("toxicity")(mostly) == "toxic"  # two of nine sentences
    assert verdict("toxicity", max_share=2 / sentences)(mostly) == "kept"
    assert verdict("toxicity", max_share=1, max_sentences=2)(mostly) == "kept"
    assert verdict("toxicity", max_share=1, max_sentences=1)(mostly) == "toxic"


@pytest.mark.parametrize(
    "text",
    [
        "Go home, all of you people, before something happens to your children.",
        "Women are not fit to vote.",
        "y0u f.u.c.k.i.n.g 1d10t",
        "Sie sind ein verdammtes Arschloch.",
    ],
)
def test_missed(verdict, text: str) -> None:
    assert verdict("toxicity", max_sentences=0)(text) == "kept"


@pytest.mark.parametrize(
    "text",
    ["To die.", "I cannot but hate it.", "Now figure out how much feed the pigs need: 7 kilograms/pig * 44 pig."],
)
def test_dropped_wrongly(verdict, text: str) -> None:
    assert verdict("toxicity", max_sentences=0)(text) == "toxic"


def test_text_without_sentences_is_scored_in_pieces(verdict, prose: str) -> None:
    words = prose.replace(".", "").replace("\n", " ")
    assert verdict("toxicity", max_sentences=0)(f"{words[:300]} {INSULT[:-1]} {words[300:]}") == "toxic"
    pieces = split_sentences(words)
    assert max(map(len, pieces)) <= MAX_SENTENCE_CHARACTERS and " ".join(pieces) == words
    assert [len(piece) for piece in split_sentences("x" * 450)] == [200, 200, 50]
    assert split_sentences("123 456. 789.") == ["123 456. 789."]
