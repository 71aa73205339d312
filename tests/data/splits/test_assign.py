"""Test that each group is in one split, the shares are met, and only the groups and the seed decide."""

import pathlib
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.config.data import Split
from speciate.data.shard import Shard
from speciate.data.splits.assign import HELD_OUT, assign_groups, merge_groups
from speciate.data.splits.group_key import group_key
from speciate.data.splits.read import GroupSplits, read_dropped_rows

SPLIT = Split(validation=0.05, test=0.1, probe=0.1, seed=0)


def one_by_one(sizes: Counter[str], split: Split) -> dict[str, str]:
    """Apply the rule in plain Python, group by group."""
    order = sorted(sizes, key=lambda group: group_key(group, split.seed))
    chosen: dict[str, str] = {}
    taken, target = 0, 0.0
    for later, name in zip(range(len(HELD_OUT), 0, -1), HELD_OUT, strict=True):
        target += float(getattr(split, name)) * sum(sizes.values())
        first = True
        while len(order) > later and (first or taken + sizes[order[0]] / 2 <= target):
            taken += sizes[order[0]]
            chosen[order.pop(0)] = name
            first = False
    return chosen | dict.fromkeys(order, "train")


def chosen(sizes: Counter[str], split: Split, parts: int = 1) -> dict[str, str]:
    """Apply the vectorised rule, with the documents spread over `parts` shards."""
    documents = [(group, part) for group, size in sizes.items() for part in (size - size // 2, size // 2)]
    names = {group_key(group, split.seed): group for group in sizes}
    shards = []
    for index in range(parts):
        of_shard = documents[index::parts]
        keys = b"".join(group_key(group, split.seed) for group, _ in of_shard)
        orders = np.frombuffer(keys, ">u8").astype(np.uint64).reshape(len(of_shard), 2)
        shards.append((orders, np.array([size for _, size in of_shard], np.int64)))
    order_G2, sizes_G = merge_groups(shards)
    groups = [names[row.astype(">u8").tobytes()] for row in order_G2]
    assert sizes_G.tolist() == [sizes[group] for group in groups]
    return {group: name for name, of_split in assign_groups(sizes_G, split, "d").items() for group in groups[of_split]}


@given(
    st.lists(st.integers(0, 1000) | st.sampled_from([1, 10**7]), min_size=4, max_size=60),
    st.integers(0, 5),
    st.integers(1, 3),
)
def test_groups_go_where_the_plain_rule_puts_them(numbers: list[int], seed: int, parts: int) -> None:
    sizes = Counter({f"g{index}": size for index, size in enumerate(numbers)})
    split = SPLIT.model_copy(update={"seed": seed})
    assert chosen(sizes, split, parts) == one_by_one(sizes, split)


def test_many_equal_groups_meet_the_shares() -> None:
    groups = Counter(chosen(Counter({f"g{index}": 10 for index in range(1000)}), SPLIT).values())
    assert groups == {"train": 750, "test": 100, "probe": 100, "validation": 50}


def test_the_order_of_documents_does_not_matter_and_the_seed_does() -> None:
    groups = [f"g{index}" for index in range(200)]
    shuffled = random.Random(1).sample(groups, 200)
    first = chosen(Counter(dict.fromkeys(groups, 5)), SPLIT)
    assert chosen(Counter(dict.fromkeys(shuffled, 5)), SPLIT) == first
    assert chosen(Counter(dict.fromkeys(groups, 5)), SPLIT.model_copy(update={"seed": 1})) != first


def test_a_new_group_moves_only_groups_near_a_cut() -> None:
    sizes = Counter({f"g{index}": 10 for index in range(400)})
    before = chosen(sizes, SPLIT)
    after = chosen(sizes + Counter({"new": 10}), SPLIT)
    assert len([group for group in sizes if before[group] != after[group]]) <= 3


def test_the_hash_is_uniform_and_pinned() -> None:
    assert group_key("a", 0).hex() == "55ffe9b5954f289bb293114c97c645cd"
    below = sum(group_key(f"g{index}", 3)[0] < 64 for index in range(4000))
    assert abs(below - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_groups_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"domain prose: a split would be empty: it has only {count} groups"):
        assign_groups(np.ones(count, np.int64), SPLIT, "prose")


def test_a_group_is_found_again_by_its_name(tmp_path: pathlib.Path) -> None:
    names = sorted((f"g{index}" for index in range(50)), key=lambda group: group_key(group, 7))
    keys = np.frombuffer(b"".join(group_key(group, 7) for group in names), ">u8").astype(np.uint64).reshape(50, 2)
    splits = np.arange(50, dtype=np.uint64) % 4
    np.save(tmp_path / "groups.npy", np.concatenate([keys, splits[:, None]], axis=1))
    groups = GroupSplits(tmp_path / "groups.npy", 7)
    assert [groups.split(group) for group in names] == splits.tolist()
    with pytest.raises(ValueError, match=r"groups.npy: does not have group other"):
        groups.split("other")
    with pytest.raises(ValueError, match=r"groups.npy: does not have group g0"):
        GroupSplits(tmp_path / "groups.npy", 8).split("g0")
    np.save(tmp_path / "groups.npy", keys)
    with pytest.raises(ValueError, match=r"groups.npy: does not hold groups"):
        GroupSplits(tmp_path / "groups.npy", 7)


def test_dropped_rows_are_those_of_the_shard(tmp_path: pathlib.Path) -> None:
    rows = [("a", 0, 3), ("a", 1, 5), ("b", 1, 1), ("a", 1, 7)]
    columns = {name: [row[index] for row in rows] for index, name in enumerate(("domain", "shard", "row"))}
    pq.write_table(pa.table(columns), tmp_path / "duplicates.parquet")
    assert read_dropped_rows(tmp_path / "duplicates.parquet", "a", Shard(1, 2), 8).tolist() == [5, 7]
    assert read_dropped_rows(tmp_path / "duplicates.parquet", "c", Shard(1, 2), 8).tolist() == []
    with pytest.raises(ValueError, match=r"belongs to other documents: domain a, shard 1-of-2 has 7 documents"):
        read_dropped_rows(tmp_path / "duplicates.parquet", "a", Shard(1, 2), 7)
    (tmp_path / "duplicates.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"duplicates.parquet: is not a file of duplicates"):
        read_dropped_rows(tmp_path / "duplicates.parquet", "a", Shard(1, 2), 8)
    pq.write_table(pa.table({"row": [1]}), tmp_path / "duplicates.parquet")
    with pytest.raises(ValueError, match=r"duplicates.parquet: is not a file of duplicates"):
        read_dropped_rows(tmp_path / "duplicates.parquet", "a", Shard(1, 2), 8)
