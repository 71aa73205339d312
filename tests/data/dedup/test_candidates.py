"""Test similar documents found through buckets against a comparison of all pairs by plain sets."""

import functools
import itertools
import pathlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.config.data import Duplicates
from speciate.data.arrays import scratch
from speciate.data.dedup import candidates
from speciate.data.dedup.candidates import SignedScope, find_similar_pairs, jaccard_similarity
from speciate.data.dedup.signatures import MAX_SHINGLES, SIGNATURE_FILES, read_signed_shards, sign_documents
from speciate.data.dedup.union_find import connected_components
from speciate.data.documents import Document, write_documents

NEAR = Duplicates(ngram=2, permutations=120, bands=20)


def families(seed: int, count: int, members: int) -> list[str]:
    """Return texts in families: each member of a family has some words of the first member replaced."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        words = [f"w{draw.randrange(4000)}" for _ in range(120)]
        for member in range(members):
            variant = list(words)
            for _ in range(2 * member):
                variant[draw.randrange(120)] = f"w{draw.randrange(4000)}"
            texts.append(" ".join(variant))
    return texts


def scope(folder: pathlib.Path, texts: list[str], shards: int = 1, near: Duplicates = NEAR) -> SignedScope:
    """Sign the texts, with text i in shard i mod shards."""
    for index in range(shards):
        part = folder / f"{index}-of-{shards}"
        part.mkdir(parents=True)
        rows = [Document(str(place), "d", str(place), text) for place, text in enumerate(texts)][index::shards]
        write_documents(part / "documents.parquet", rows)
        sign_documents(part / "documents.parquet", {name: part / name for name in SIGNATURE_FILES}, 0, near)
    return SignedScope(read_signed_shards("d", folder, shards))


@functools.cache
def runs(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(itertools.pairwise(words))


def exact(one: str, other: str) -> float:
    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


def test_what_is_connected_is_what_all_pairs_connect(tmp_path: pathlib.Path) -> None:
    texts = families(0, 30, 6) + families(1, 60, 1)
    signed_scope = scope(tmp_path, texts)
    pairs = find_similar_pairs(signed_scope, range(20), 0.7)
    alike = [
        pair for pair in itertools.combinations(range(len(texts)), 2) if exact(texts[pair[0]], texts[pair[1]]) >= 0.7
    ]
    assert {tuple(pair) for pair in pairs.tolist()} <= set(alike)
    assert np.array_equal(connected_components(len(texts), pairs), connected_components(len(texts), np.array(alike)))
    assert 60 < len(pairs) < len(alike)  # pairs that are already connected are not compared again
    expected = [exact(texts[one], texts[two]) for one, two in alike]
    assert signed_scope.similarities(np.array(alike)).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("letters", ["漢字仮名文書記述", "กขคงจฉชซ", "កខគឃងចឆជ", "ကခဂဃငစဆဇ"])
def test_one_letter_of_hundreds_without_a_space_leaves_texts_alike(tmp_path: pathlib.Path, letters: str) -> None:
    draw = random.Random(0)
    one, unrelated = ("".join(draw.choices(letters, k=433)) for _ in range(2))
    other = one[:216] + "字" + one[217:]
    signed_scope = scope(tmp_path, [one, unrelated, other], near=Duplicates())
    assert find_similar_pairs(signed_scope, range(20), 0.8).tolist() == [[0, 2]]
    # 424 runs of ten letters, of which ten hold the one that differs
    assert signed_scope.similarities(np.array([[0, 2], [0, 1]])).tolist() == pytest.approx([414 / 434, 0])


def test_words_that_differ_in_their_vowel_signs_alone_are_not_alike(tmp_path: pathlib.Path) -> None:
    draw = random.Random(0)
    words = [("".join(draw.choices("कखगघचछ", k=3))) for _ in range(60)]
    one, other = (" ".join(word + sign for word, sign in zip(words, signs * 30, strict=True)) for signs in ("िी", "ीि"))
    signed_scope = scope(tmp_path, [one, other], near=Duplicates())
    assert find_similar_pairs(signed_scope, range(20), 0.8).tolist() == []
    assert signed_scope.similarities(np.array([[0, 1]])).tolist() == [0]


def test_shards_and_jobs_do_not_change_what_is_connected(tmp_path: pathlib.Path) -> None:
    texts = families(2, 20, 5)
    texts += texts[::3]
    result = set()
    for shards, jobs in ((1, 1), (4, 1), (4, 3)):
        signed_scope = scope(tmp_path / f"{shards}-{jobs}", texts, shards)
        order = [text for index in range(shards) for text in texts[index::shards]]
        pairs = np.concatenate([find_similar_pairs(signed_scope, range(job, 20, jobs), 0.7) for job in range(jobs)])
        firsts = signed_scope.first_of_same_text()
        assert [order[first] for first in firsts.tolist()] == order
        assert all(first == order.index(text) for first, text in zip(firsts.tolist(), order, strict=True))
        labels = connected_components(
            len(order), np.concatenate([pairs, np.stack([firsts, np.arange(len(order))], axis=1)])
        )
        result.add(frozenset(frozenset(np.array(order)[labels == label].tolist()) for label in range(labels.max() + 1)))
    assert len(result) == 1
    assert max(map(len, result.pop())) >= 4


def test_portions_and_parts_do_not_show(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_scope = scope(tmp_path, families(4, 30, 5), 3)
    pairs, texts = find_similar_pairs(signed_scope, range(20), 0.7), signed_scope.first_of_same_text()
    assert len(pairs) > 40
    for module, name, size in (
        (candidates, "CHUNK_ROWS", 7),
        (candidates, "COMPARED_PAIRS", 2),
        (candidates, "REJECTED_SLOTS", 3),
    ):
        monkeypatch.setattr(module, name, size)
    monkeypatch.setattr(scratch, "PARTITION_ROWS", 20)
    assert np.array_equal(find_similar_pairs(signed_scope, range(20), 0.7), pairs)
    assert np.array_equal(signed_scope.first_of_same_text(), texts)


def test_a_huge_bucket_is_joined_with_few_comparisons(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [f"w{index}" for index in range(400)]
    texts = [" ".join([*words[:index], "other", *words[index + 1 :]]) for index in range(400)]
    signed_scope = scope(tmp_path, texts)
    compared = 0

    def counting(one: np.ndarray, other: np.ndarray) -> float:
        nonlocal compared
        compared += 1
        return jaccard_similarity(one, other)

    monkeypatch.setattr(candidates, "jaccard_similarity", counting)
    assert len(np.unique(connected_components(len(texts), find_similar_pairs(signed_scope, range(20), 0.8)))) == 1
    assert compared < 4 * len(texts)


HASHES = st.sets(st.integers(0, 2**32 - 1) | st.integers(0, 20), max_size=30)


@given(HASHES, HASHES)
def test_jaccard_is_that_of_the_sets(one: set[int], other: set[int]) -> None:
    expected = len(one & other) / len(one | other) if one | other else 0
    assert jaccard_similarity(np.array(sorted(one), np.uint32), np.array(sorted(other), np.uint32)) == expected


@pytest.mark.parametrize(("larger", "smaller"), [(30_000, 30_000), (30_000, 3000), (5000, 4000)])
def test_large_sets_are_compared_by_their_smallest_hashes(larger: int, smaller: int) -> None:
    draw = np.random.default_rng(larger + smaller)
    for share in (0.3, 0.8, 1.0):
        one = draw.integers(0, 2**32, larger, dtype=np.uint32)
        both = int(share * smaller)
        other = np.concatenate([one[:both], draw.integers(0, 2**32, smaller - both, dtype=np.uint32)])
        sets = [np.unique(each) for each in (one, other)]
        expected = len(np.intersect1d(*sets)) / len(np.union1d(*sets))
        result = jaccard_similarity(sets[0][:MAX_SHINGLES], sets[1][:MAX_SHINGLES])
        assert abs(result - expected) < 4.5 * (max(expected * (1 - expected), 1e-4) / min(MAX_SHINGLES, smaller)) ** 0.5


@pytest.mark.parametrize("texts", [[], ["a"], ["a b c d e"] * 3, ["…", "...", "!"]])
def test_nothing_to_compare(tmp_path: pathlib.Path, texts: list[str]) -> None:
    assert find_similar_pairs(scope(tmp_path, texts), range(20), 0.5).shape == (0, 2)
