"""Test shingles against a plain Python version of their definition: equal runs of words <-> equal hashes."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.dedup.shingles import BATCH_CHARACTERS, batch_shingle_hashes, shingle_hashes, splitmix64

LETTERS = "aAbB_9 .,-\n\téÉßİΣσς“”—…漢字\u0301\u00a0\x00"
TEXTS = st.text(alphabet=LETTERS, max_size=60) | st.text(max_size=60)


def plain(text: str, ngram: int) -> list[tuple[str, ...]]:
    """Return the runs of words themselves."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < ngram:
        return [tuple(words)] if words else []
    return [tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)]


@given(st.lists(TEXTS, max_size=8), st.integers(1, 6))
def test_hashes_are_equal_where_runs_of_words_are(texts: list[str], ngram: int) -> None:
    hashes, counts = batch_shingle_hashes(texts, ngram)
    runs = [plain(text, ngram) for text in texts]
    assert counts.tolist() == [len(each) for each in runs]
    assert [shingle_hashes(text, ngram).tolist() for text in texts] == [
        part.tolist() for part in np.split(hashes, np.cumsum(counts)[:-1])
    ][: len(texts)]
    flat = [run for each in runs for run in each]
    assert len(set(flat)) == len(set(hashes.tolist())) == len(set(zip(flat, hashes.tolist(), strict=True)))


@pytest.mark.parametrize("ngram", [1, 2, 5, 8])
def test_no_collision_among_many_runs_and_words_of_every_length(ngram: int) -> None:
    draw = np.random.default_rng(ngram)
    words = ["".join(draw.choice(list("ab"), length)) for length in range(1, 200) for _ in range(40)]
    text = " ".join(draw.choice(words, 60_000))
    runs = plain(text, ngram)
    hashes = shingle_hashes(text, ngram)
    assert len(set(runs)) == len(set(hashes.tolist())) == len(set(zip(runs, hashes.tolist(), strict=True)))


def test_separators_and_case_do_not_count_and_words_do() -> None:
    text = "The quick-brown Fox, jumps_over it."
    assert shingle_hashes(text, 3).tolist() == shingle_hashes("the QUICK brown\n\n  fox … jumps_over “it”", 3).tolist()
    assert set(shingle_hashes(text, 3).tolist()).isdisjoint(
        shingle_hashes("the quick brown fox jumps over it", 3).tolist()[2:]
    )
    assert shingle_hashes("a b", 5)[0] not in shingle_hashes("x x x a b", 5)


def test_texts_beyond_one_batch_are_as_if_alone() -> None:
    texts = [f"word{index} " * (index % 50) for index in range(3000)]
    assert sum(map(len, texts)) > 2 * BATCH_CHARACTERS
    hashes, counts = batch_shingle_hashes(texts, 4)
    assert counts.sum() == len(hashes)
    assert np.array_equal(hashes, np.concatenate([shingle_hashes(text, 4) for text in texts]))


def test_nothing_gives_nothing() -> None:
    assert [len(part) for part in batch_shingle_hashes([], 5)] == [0, 0]
    assert [part.tolist() for part in batch_shingle_hashes(["", " .,", "é", "“”"], 5)] == [
        shingle_hashes("É", 5).tolist(),
        [0, 0, 1, 0],
    ]


def test_hashes_are_uniform_and_pinned() -> None:
    pinned = ["6fb151d629d85b38", "d4a837baa404673b"]
    assert [f"{value:016x}" for value in shingle_hashes("one two three", 2).tolist()] == pinned
    hashes = shingle_hashes(" ".join(map(str, range(20_000))), 1)
    ones = [int((hashes >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(64)]
    assert max(abs(count - 10_000) for count in ones) < 5 * 5000**0.5


def test_mix_is_one_to_one_on_what_it_is_given() -> None:
    assert len(np.unique(splitmix64(np.arange(100_000, dtype=np.uint64)))) == 100_000
