"""Test that the texts have the chain's transitions and the stated entropy."""

import itertools
import pathlib
import string
from collections import Counter

import numpy as np
import pytest

from speciate.data.fetch.sources import markov
from speciate.data.shard import Shard


@pytest.fixture
def texts(tmp_path: pathlib.Path) -> list[str]:
    options = markov.Options(kind="markov", num_letters=5, num_texts=300, length=200)
    markov.fetch(options, "chain", tmp_path / "archive", Shard(0, 1))
    markov.fetch(options, "chain", tmp_path / "again", Shard(0, 1))
    assert (tmp_path / "archive").read_bytes() == (tmp_path / "again").read_bytes()
    passages = list(markov.read(options, "chain", tmp_path / "archive"))
    assert len({passage.id for passage in passages}) == 300
    return [str(passage.text) for passage in passages]


def test_the_texts_follow_the_chain(texts: list[str]) -> None:
    options = markov.Options(kind="markov", num_letters=5)
    next_SS, letters = markov.transition_matrix(options), string.ascii_lowercase
    np.testing.assert_allclose(next_SS.sum(axis=1), 1)
    seen = Counter(pair for text in texts for pair in itertools.pairwise(text))
    for first in range(5):
        total = sum(seen[letters[first], letters[second]] for second in range(5))
        for second in range(5):
            share, expected = seen[letters[first], letters[second]] / total, next_SS[first, second]
            assert abs(share - expected) < 5 * (expected * (1 - expected) / total) ** 0.5
    assert {len(text) for text in texts} == {200}
    assert set("".join(texts)) <= set(letters[:5])
    surprise = -sum(
        np.log(next_SS[letters.index(before), letters.index(after)])
        for text in texts
        for before, after in itertools.pairwise(text)
    )
    assert surprise / (300 * 199) == pytest.approx(markov.entropy_rate(options), rel=0.01)


def test_the_entropy_of_two_letters_by_hand() -> None:
    options = markov.Options(kind="markov", num_letters=2)
    (stay, leave), (back, rest) = markov.transition_matrix(options)
    share = back / (leave + back)
    expected = -share * (stay * np.log(stay) + leave * np.log(leave))
    expected -= (1 - share) * (back * np.log(back) + rest * np.log(rest))
    assert markov.entropy_rate(options) == pytest.approx(expected)
    assert markov.bits_per_byte(options) == pytest.approx(expected / np.log(2))
