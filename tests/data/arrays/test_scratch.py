"""Test that arrays and partitions on disk give back the rows that were added."""

import numpy as np
import pytest

from speciate.data.arrays import scratch
from speciate.data.arrays.scratch import Partitions, ScratchArray


def test_what_was_appended_is_read_again() -> None:
    rows = ScratchArray([("key", np.uint64), ("place", np.int32)])
    expected = np.zeros(1000, rows.dtype)
    expected["key"], expected["place"] = np.arange(1000) ** 2, np.arange(1000)
    for start in range(0, 1000, 300):
        rows.append(expected[start : start + 300])
    assert len(rows) == 1000
    assert (rows.read(250, 720) == expected[250:720]).all()
    assert (np.concatenate(list(rows.chunks(64))) == expected).all()
    assert len(rows.read(990, 2000)) == 10
    assert (rows.memory_map((1000,))["place"] == np.arange(1000)).all()
    assert ScratchArray(np.int64).memory_map((0, 2)).shape == (0, 2)


@pytest.mark.parametrize("count", [0, 5, 7000])
def test_parts_are_ranges_in_the_order_in_which_rows_came(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PARTITION_ROWS", 1000)
    hashes = np.random.default_rng(0).integers(0, 1 << 64, count, dtype=np.uint64)
    for part_of in (
        Partitions.partitions_by_hash,
        lambda parts, values: parts.partitions_by_number(values >> np.uint64(50), 1 << 14),
    ):
        parts = Partitions(count, np.uint64)
        for start in range(0, count, 333):
            chunk = hashes[start : start + 333]
            parts.add(part_of(parts, chunk), chunk)
        read_back = list(parts)
        assert len(read_back) == (8 if count > 1000 else 1)
        assert max(map(len, read_back)) < 1500
        assert np.concatenate([np.sort(values) for values in read_back]).tolist() == sorted(hashes.tolist())
        index_of = {value: index for index, value in enumerate(hashes.tolist())}
        assert all((np.diff([index_of[value] for value in values.tolist()]) > 0).all() for values in read_back)
