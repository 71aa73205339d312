"""Rows on disk, by which what is sorted needs the memory of a part alone."""

import numpy as np
import pytest

from speciate.data.arrays import scratch
from speciate.data.arrays.scratch import Partitions, ScratchArray


def test_what_was_appended_is_read_again() -> None:
    rows = ScratchArray([("key", np.uint64), ("place", np.int32)])
    made = np.zeros(1000, rows.dtype)
    made["key"], made["place"] = np.arange(1000) ** 2, np.arange(1000)
    for start in range(0, 1000, 300):
        rows.append(made[start : start + 300])
    assert len(rows) == 1000
    assert (rows.read(250, 720) == made[250:720]).all()
    assert (np.concatenate(list(rows.chunks(64))) == made).all()
    assert len(rows.read(990, 2000)) == 10
    assert (rows.memory_map((1000,))["place"] == np.arange(1000)).all()
    assert ScratchArray(np.int64).memory_map((0, 2)).shape == (0, 2)


@pytest.mark.parametrize("count", [0, 5, 7000])
def test_parts_are_ranges_in_the_order_in_which_rows_came(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "PARTITION_ROWS", 1000)
    hashes = np.random.default_rng(0).integers(0, 1 << 64, count, dtype=np.uint64)
    for part_of in (
        Partitions.partitions_by_hash,
        lambda parts, each: parts.partitions_by_number(each >> np.uint64(50), 1 << 14),
    ):
        parts = Partitions(count, np.uint64)
        for start in range(0, count, 333):
            here = hashes[start : start + 333]
            parts.add(part_of(parts, here), here)
        found = list(parts)
        assert len(found) == (8 if count > 1000 else 1)
        assert max(map(len, found)) < 1500
        assert np.concatenate([np.sort(each) for each in found]).tolist() == sorted(hashes.tolist())
        places = {value: place for place, value in enumerate(hashes.tolist())}
        assert all((np.diff([places[value] for value in each.tolist()]) > 0).all() for each in found)
