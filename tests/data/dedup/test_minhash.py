"""Test MinHash against exact Jaccard similarities of random sets: no bias, and the theoretical variance."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.dedup.minhash import band_hashes, hash_sets, minhash_signatures

TRIALS = 600


def pairs(size: int, similarity: float) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], float]:
    """Return random sets in pairs, each pair with a union of `size` hashes, and their exact similarities."""
    draw = np.random.default_rng(size)
    both = round(size * similarity)
    alone = (size - both) // 2
    result, counts = [], []
    for _ in range(TRIALS):
        union = draw.integers(0, 2**64, size, dtype=np.uint64)
        result += [union[: both + alone], np.concatenate([union[:both], union[both + alone :]])]
        counts += [len(result[-2]), len(result[-1])]
    return np.concatenate(result), np.array(counts), both / size


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(("size", "most"), [(40, 1.6), (300, 1.25), (4000, 1.25)])
def test_the_estimate_has_no_bias_and_the_variance_of_theory(size: int, most: float, similarity: float) -> None:
    hashes, counts, exact = pairs(size, similarity)
    values = minhash_signatures(*hash_sets(hashes, counts), 128)
    estimates = (values[::2] == values[1::2]).mean(axis=1)
    variance = exact * (1 - exact) / 128
    assert abs(estimates.mean() - exact) < 4 * (most * variance / TRIALS) ** 0.5
    assert 0.7 * variance / (1 + 128 / size) < estimates.var() < most * variance


@given(st.lists(st.lists(st.integers(0, 2**34 - 1), max_size=30), max_size=6))
def test_sets_are_each_texts_upper_halves_sorted_and_once(texts: list[list[int]]) -> None:
    hashes = np.array([value << 30 for text in texts for value in text], np.uint64)
    result, counts = hash_sets(hashes, np.array([len(text) for text in texts], np.int64))
    expected = [sorted({value >> 2 for value in text}) for text in texts]
    assert result.tolist() == [value for each in expected for value in each]
    assert counts.tolist() == [len(each) for each in expected]


def test_a_signature_is_the_sets_alone_and_equal_sets_have_equal_ones() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 700, dtype=np.uint64)
    parts = [hashes[:5], hashes[:0], hashes, hashes[::-1], hashes[:5]]
    together = minhash_signatures(*hash_sets(np.concatenate(parts), np.array([len(part) for part in parts])), 60)
    alone = [minhash_signatures(*hash_sets(part, np.array([len(part)])), 60)[0] for part in parts]
    assert np.array_equal(together, np.stack(alone))
    assert np.array_equal(together[0], together[4]) and np.array_equal(together[2], together[3])
    assert not together[1].any()
    halves = hashes >> np.uint64(32)
    bins = [halves[halves * 60 >> np.uint64(32) == place] for place in range(60)]
    assert together[2].tolist() == [int(values.min()) for values in bins]  # 700 hashes leave no bin empty


def test_bands_agree_where_all_their_values_do() -> None:
    values = np.random.default_rng(0).integers(0, 3, (400, 12)).astype(np.uint32)
    result = band_hashes(values, 4)
    assert result.shape == (4, 400)
    for band, hashes in enumerate(result):
        rows = [tuple(row) for row in values[:, 3 * band : 3 * band + 3].tolist()]
        assert len(set(rows)) == len(set(hashes.tolist())) == len(set(zip(rows, hashes.tolist(), strict=True)))
    assert len(set(band_hashes(np.zeros((1, 12), np.uint32), 4)[:, 0].tolist())) == 4  # equal values in different bands
