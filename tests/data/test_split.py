"""Every group in one split, shares met, and nothing but the groups and the seed decides."""

import pathlib
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.documents import Document, write_documents
from speciate.data.split import HELD_OUT, assign, group_bytes, position
from speciate.spec import Split

SPLIT = Split(validation=0.05, test=0.1, probe=0.1, seed=0)


def test_many_equal_groups_meet_the_shares() -> None:
    sizes = Counter({f"g{index}": 10 for index in range(1000)})
    found = Counter(assign(sizes, SPLIT, "d").values())
    assert found == {"train": 750, "test": 100, "probe": 100, "validation": 50}


@given(st.lists(st.integers(1, 1000), min_size=4, max_size=60), st.integers(0, 5))
def test_no_split_is_empty_and_cuts_are_met_to_half_a_group(numbers: list[int], seed: int) -> None:
    sizes = Counter({f"g{index}": size for index, size in enumerate(numbers)})
    chosen = assign(sizes, SPLIT.model_copy(update={"seed": seed}), "d")
    assert set(chosen) == set(sizes)
    assert set(chosen.values()) == {"train", *HELD_OUT}
    order = sorted(sizes, key=lambda group: position(group, seed))
    assert [chosen[group] for group in order] == sorted(
        chosen.values(), key=[*HELD_OUT, "train"].index
    )  # runs of the hash order
    held_out = [chosen[group] for group in order if chosen[group] != "train"]
    if len(held_out) > 3 and len(set(held_out[-2:])) == 1 and len(order) > len(held_out) + 1:
        taken = sum(sizes[group] for group in order[: len(held_out)])  # nothing forced the last cut
        assert taken - max(numbers) / 2 <= 0.25 * sum(numbers) + 1e-9
        assert taken + max(numbers) / 2 >= 0.25 * sum(numbers) - 1e-9


def test_the_order_of_documents_does_not_matter_and_the_seed_does() -> None:
    groups = [f"g{index}" for index in range(200)]
    shuffled = random.Random(1).sample(groups, 200)
    first = assign(Counter(dict.fromkeys(groups, 5)), SPLIT, "d")
    assert assign(Counter(dict.fromkeys(shuffled, 5)), SPLIT, "d") == first
    assert assign(Counter(dict.fromkeys(groups, 5)), SPLIT.model_copy(update={"seed": 1}), "d") != first


def test_a_new_group_moves_only_groups_near_a_cut() -> None:
    sizes = Counter({f"g{index}": 10 for index in range(400)})
    before = assign(sizes, SPLIT, "d")
    after = assign(sizes + Counter({"new": 10}), SPLIT, "d")
    moved = [group for group in sizes if before[group] != after[group]]
    assert len(moved) <= 3


def test_the_hash_is_uniform_and_pinned() -> None:
    assert position("a", 0).hex() == "55ffe9b5954f289bb293114c97c645cd"
    below = sum(position(f"g{index}", 3)[0] < 64 for index in range(4000))
    assert abs(below - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="domain prose: a split would be empty: there are only 3 groups"):
        assign(Counter({f"g{index}": 10 for index in range(3)}), SPLIT, "prose")


def test_group_bytes_counts_utf8(tmp_path: pathlib.Path) -> None:
    rows = [Document("1", "d", "a", "ü"), Document("2", "d", "a", "xyz"), Document("3", "d", "b", "q")]
    write_documents(tmp_path / "documents.parquet", rows)
    assert group_bytes(tmp_path / "documents.parquet") == {"a": 5, "b": 1}
