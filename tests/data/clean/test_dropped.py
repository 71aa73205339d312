"""Test that each reason keeps the same few samples, in whatever order or shards the documents come."""

import pathlib
import random

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from speciate.data.clean.dropped import MAX_CHARACTERS, DroppedSamples, sampling_rank, write_dropped
from speciate.data.documents import Document


def sampled(documents: list[Document], per_reason: int = 3) -> list[str]:
    samples = DroppedSamples(per_reason)
    for document in documents:
        samples.add(document, "even" if len(document.text) % 2 == 0 else "odd", "length", "")
    return samples.table().column("id").to_pylist()


@given(st.integers(0, 40), st.randoms())
def test_the_lowest_ranks_of_each_reason_in_any_order(number: int, order: random.Random) -> None:
    documents = [Document(f"s/{index}", "d", "g", "x" * index) for index in range(number)]
    expected = [
        f"s/{index}"
        for parity in (0, 1)
        for index in sorted(range(parity, number, 2), key=lambda index: sampling_rank(f"s/{index}"))[:3]
    ]
    assert sampled(documents) == expected
    order.shuffle(documents)
    assert sampled(documents) == expected


def test_the_lowest_of_the_shards_hold_the_lowest_of_the_whole() -> None:
    documents = [Document(f"s/{index}", "d", "g", "xx") for index in range(300)]
    reference = sampled(documents)
    of_shards = [name for shard in range(4) for name in sampled(documents[shard::4])]
    assert sorted(of_shards, key=sampling_rank)[:3] == reference


def test_the_file_is_the_same_twice_and_holds_the_beginning_of_a_text(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        samples = DroppedSamples()
        samples.add(Document("s/1", "d", "g", "ü" * 5000), "too_long", "length", "5000 characters")
        samples.add(Document("s/\udc80", "d", "g", "\ud800"), "lone_surrogate", "clean", "\ud800")
        write_dropped(tmp_path / name, samples)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    surrogate, long = pq.read_table(tmp_path / "one").to_pylist()
    assert long["text"] == "ü" * MAX_CHARACTERS and long["characters"] == 5000
    assert (surrogate["text"], surrogate["id"], surrogate["note"]) == ("\\ud800", "s/\\udc80", "\\ud800")


def test_nothing_dropped_is_a_file_without_rows(tmp_path: pathlib.Path) -> None:
    write_dropped(tmp_path / "none", DroppedSamples())
    table = pq.read_table(tmp_path / "none")
    assert table.num_rows == 0
    assert table.column_names == ["reason", "filter", "note", "id", "characters", "text"]
