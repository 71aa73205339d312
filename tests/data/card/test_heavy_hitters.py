"""Compare with plain counts: the estimate is never above them, and below by at most the stated bound."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.card import heavy_hitters
from speciate.data.card.heavy_hitters import HeavyHitters, common_prefix

STREAMS = st.lists(st.sampled_from("aaabbcdefghij"), max_size=80)


def counted(keys: list[str]) -> HeavyHitters:
    hitters = HeavyHitters()
    for key in keys:
        hitters.add(key, key)
    return hitters


@given(STREAMS, st.integers(0, 80))
def test_the_bound_holds_and_memory_is_bounded(keys: list[str], cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heavy_hitters, "SIZE", 4)
        truth = Counter(keys)
        parts = counted(keys[:cut]) + counted(keys[cut:])
        for hitters in (counted(keys), parts, HeavyHitters.from_json(parts.as_json())):
            assert len(hitters.counts) <= 4 and hitters.undercount <= len(keys) / 5
            for key in truth:
                assert truth[key] - hitters.undercount <= hitters.counts.get(key, 0) <= truth[key]


def test_few_different_texts_are_counted_exactly() -> None:
    keys = random.Random(0).choices("abcdefgh", k=1000)
    hitters = counted(keys)
    assert hitters.counts == Counter(keys) and hitters.undercount == 0
    assert counted(keys[:300]) + counted(keys[300:]) == hitters


def test_what_is_written_covers_what_is_left_out() -> None:
    hitters = counted([chr(ord("a") + index) for index in range(20) for _ in range(30 - index)])
    written = hitters.as_json()
    assert [count for _, _, count in written["top"]] == list(range(30, 14, -1))
    assert written["below"] == 14  # the count of the seventeenth


def test_the_common_part_of_texts_under_one_key() -> None:
    hitters = HeavyHitters()
    for text in ("Question: how many", "Question: how far", "Question: who"):
        hitters.add("Question", text)
    assert hitters.as_json()["top"] == [["Question", "Question: ", 3]]


@given(st.text(alphabet="ab"), st.text(alphabet="ab"))
def test_shared(one: str, two: str) -> None:
    common = common_prefix(one, two)
    assert one.startswith(common) and two.startswith(common)
    assert one[len(common) :][:1] != two[len(common) :][:1] or common == one == two
