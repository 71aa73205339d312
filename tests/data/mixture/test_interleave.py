"""Test that every prefix of a mixture has its domains in proportion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.data.mixture import interleave


@settings(max_examples=200, deadline=None)
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any))
def test_any_prefix_is_nearly_proportional(counts: list[int]) -> None:
    rows = [np.random.default_rng(domain).permutation(count) for domain, count in enumerate(counts)]
    mixture = interleave.interleave(rows)
    assert mixture.dtype == np.int32
    for domain, domain_rows in enumerate(rows):
        assert mixture[mixture[:, 0] == domain, 1].tolist() == domain_rows.tolist(), "a domain's own order is kept"
    share = np.array(counts) / sum(counts)
    so_far = np.cumsum(mixture[:, :1] == np.arange(len(counts)), axis=0)
    lengths = np.arange(1, len(mixture) + 1)[:, None]
    assert np.abs(so_far - share * lengths).max() <= (len(counts) + 1) / 2 + 1e-9


@pytest.mark.parametrize("portion", [1, 7, 100])
def test_the_chunk_size_does_not_change_the_order(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for counts in ([40, 40], [99, 1, 33], [0, 5], [64, 32, 16, 8]):
        rows = [np.random.default_rng(domain).permutation(count) for domain, count in enumerate(counts)]
        keys = [(index + 0.5) / count for count in counts for index in range(count)]
        domains = np.repeat(np.arange(len(counts)), counts)
        pairs = np.stack([domains, np.concatenate(rows)], axis=1)
        monkeypatch.setattr(interleave, "CHUNK_ROWS", portion)
        assert interleave.interleave(rows).tolist() == pairs[np.lexsort((domains, keys))].tolist()
    epochs = [np.arange(5), np.arange(5)[::-1], np.arange(5)]
    assert interleave.concatenate_epochs(epochs, 12).tolist() == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1]


def test_equal_parts_alternate() -> None:
    assert interleave.interleave([np.array([5, 6]), np.array([7, 8])]).tolist() == [[0, 5], [1, 7], [0, 6], [1, 8]]


def test_four_to_one_by_hand() -> None:
    # keys 1/8, 3/8, 5/8, 7/8 against 1/2
    assert interleave.interleave([np.arange(4), np.arange(1)])[:, 0].tolist() == [0, 0, 1, 0, 0]


def test_an_empty_domain_is_named() -> None:
    interleave.require_blocks({"a": 1})
    with pytest.raises(ValueError, match=r"domains.b: too small for one block of the test split \(blocks: a 3, b 0\)"):
        interleave.require_blocks({"a": 3, "b": 0}, "test")
