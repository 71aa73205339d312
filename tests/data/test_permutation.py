import hashlib

import numpy as np
import pytest

from speciate.data import disk_permutation as order
from speciate.data.arrays import scratch
from speciate.data.disk_permutation import disk_permutation
from speciate.data.permutation import permutation


def test_it_is_a_permutation_that_depends_on_its_purpose_alone() -> None:
    first = permutation(1000, "train", 0, 3)
    assert sorted(first.tolist()) == list(range(1000))
    assert (permutation(1000, "train", 0, 3) == first).all()
    for other in [("train", 0, 4), ("train", 1, 3), ("test", 0, 3), ("train", "0", 3), ("train", 0, 3, "")]:
        assert (permutation(1000, *other) != first).mean() > 0.9


def test_every_order_is_equally_likely() -> None:
    orders = [tuple(permutation(3, "fair", seed).tolist()) for seed in range(3000)]
    counts = np.array([orders.count(order) for order in sorted(set(orders))])
    assert len(counts) == 6
    assert ((counts - 500) ** 2 / 500).sum() < 20.5  # chi-squared, 5 degrees of freedom, 0.1 %


def test_it_never_changes() -> None:
    assert (
        hashlib.sha256(permutation(100, "train", 0, 0).astype("<i8").tobytes()).hexdigest()[:16] == "7fee2a76cc274687"
    )
    assert permutation(0, "empty").shape == (0,)


def test_sorting_by_partitions_gives_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, size in (
        (scratch, "PARTITION_ROWS", 100),
        (order, "PARTITION_ROWS", 100),
        (order, "CHUNK_ROWS", 37),
    ):
        monkeypatch.setattr(module, name, size)
    for num in (0, 100, 101, 5000):
        assert disk_permutation(num, "train", 1).tolist() == permutation(num, "train", 1).tolist()
