"""Test shingles against a plain Python version of their definition: equal runs of words <-> equal hashes."""

import itertools
import random

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.dedup.shingles import BATCH_CHARACTERS, batch_shingle_hashes, read_run, shingle_hashes, splitmix64

LETTERS = "aAbB_9 .,-\n\téÉßİΣσς“”—…漢字々カーกำไ๙हिन्दी\u0301\u00ad\u200b\u200d\ufe0f\u00a0\x00☀"
TEXTS = st.text(alphabet=LETTERS, max_size=60) | st.text(max_size=60)


ALONE = (
    r"[[\p{L}\p{Nl}]&&[\p{scx=Han}\p{scx=Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Tangut}\p{Nushu}\p{Kits}\p{Thai}\p{Lao}"
    r"\p{Khmer}\p{Myanmar}\p{Tale}\p{Talu}\p{Lana}\p{Tavt}\p{Ahom}\p{Java}\p{Bali}]]"
)
UNIT = regex.compile(rf"(?V1)({ALONE}\p{{M}}*)|(?:[[\p{{L}}\p{{N}}_]--{ALONE}]\p{{M}}*)+")
"""A letter of a script without spaces, or a word, as `regex` reads Unicode."""


def plain(text: str, ngram: int) -> list[tuple[str, ...]]:
    """Return the runs of `ngram` words themselves; two letters of a script without spaces count as one word."""
    shown = regex.sub(r"(?V1)[\p{DI}--\u200b]", "", text.lower())
    units = [(match.group(), 1 if match.group(1) else 2) for match in UNIT.finditer(shown)]
    runs = []
    for start in range(len(units)):
        sizes = itertools.accumulate(size for _, size in units[start:])
        stop = next((start + n for n, size in enumerate(sizes, 1) if size >= 2 * ngram), None)
        if stop is not None:
            runs.append(tuple(unit for unit, _ in units[start:stop]))
    return runs or ([tuple(unit for unit, _ in units)] if units else [])


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


CHINESE = (
    "他们的父辈在河边修建了一座很长的石桥。许多年以后，孩子们每天清晨仍然从桥上走过，到对岸的学校去读书。老人坐在桥头，看着船只慢慢驶向大海，"
    "说起洪水冲走旧桥的那个夜晚。如今城里有了新的车站和宽阔的马路，可是没有人愿意离开这条安静的小河。"
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # each letter after the first is a combining mark: as separators they would leave the same consonants
        ("कि", "की"),
        ("நீ", "நா"),
        ("กิน", "กัน"),
        ("e\u0323", "e\u0331"),
    ],
)
def test_a_mark_belongs_to_its_word(one: str, other: str) -> None:
    assert shingle_hashes(one, 1).tolist() != shingle_hashes(other, 1).tolist()
    assert len(shingle_hashes(one, 1)) == len(plain(one, 1))


def test_marks_do_not_make_words_more() -> None:
    sentence = "उन्होंने नदी के किनारे एक लंबा पुल बनाया और बच्चे उसी पुल से विद्यालय गए"
    assert len(shingle_hashes(sentence, 1)) == len(sentence.split()) == 15


def test_two_texts_of_other_words_are_not_alike() -> None:
    # the same consonants with other vowel signs
    one, other = "कि ति मि रि लि सि हि पि चि टि", "की ती मी री ली सी ही पी ची टी"
    assert set(shingle_hashes(one, 3).tolist()).isdisjoint(shingle_hashes(other, 3).tolist())


def test_one_character_more_or_less_leaves_texts_without_spaces_alike() -> None:
    middle = len(CHINESE) // 2
    for other in (CHINESE[:middle] + "龙" + CHINESE[middle + 1 :], CHINESE[:middle] + CHINESE[middle + 1 :]):
        one, two = (set(shingle_hashes(text, 5).tolist()) for text in (CHINESE, other))
        # ten letters make five words, so a change of one letter touches ten runs
        assert len(one - two) == 10 and len(one & two) / len(one | two) > 0.8


def test_spaces_and_line_ends_within_such_a_text_do_not_count() -> None:
    draw = random.Random(0)
    wrapped = "".join(character + draw.choice(["", "", "\n", " ", "\u200b"]) for character in CHINESE)
    assert shingle_hashes(wrapped, 5).tolist() == shingle_hashes(CHINESE, 5).tolist()


def test_what_is_not_shown_is_passed_over() -> None:
    shown = "extraordinary می خواهم بروم क्ष heart ☀ text"
    hidden = "extra\u00adordi\u00adnary م\u200fی خواه\u200cم بروم क्\u200dष he\u2060art ☀\ufe0f te\ufe0fxt\ufeff"
    assert shingle_hashes(hidden, 2).tolist() == shingle_hashes(shown, 2).tolist()


def test_a_run_is_read_as_it_is_counted() -> None:
    text = "The iPhone 手机, 很好用的! और हिन्दी"
    assert [read_run(text, 2, index) for index in range(len(shingle_hashes(text, 2)))] == [
        "the iphone",
        "iphone 手机",
        "手机很好",
        "机很好用",
        "很好用的",
        "好用的 और",
        "用的 और",
        "的 और हिन्दी",
        "और हिन्दी",
    ]
