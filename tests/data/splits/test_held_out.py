import hashlib

import numpy as np
import pyarrow as pa
import pytest

from speciate.config.components import options_of
from speciate.data.packing import concat, segments
from speciate.data.packing.fill_blocks import fill_blocks
from speciate.data.permutation import permutation
from speciate.data.splits import held_out
from speciate.data.splits.held_out import (
    Pack,
    blocks_per_domain,
    choose_blocks,
    draw_set,
    main_documents,
    renumber_documents,
)
from speciate.data.tokens.encoded import EncodedSplit

END = 99


def pack(lengths: list[int], groups: list[str], first: int, with_types: bool = True) -> Pack:
    """Return a pack of blocks of 4 tokens; all tokens of document d of the domain are first + d."""
    lengths_D = np.array(lengths, np.int64)
    stops = np.cumsum(lengths_D)
    plan = segments.concatenate_plan(concat.plan(options_of("data/packing", "concat")(kind="concat"), lengths_D, 4))
    tokens = np.repeat(first + np.arange(len(lengths)), lengths_D).astype(np.uint16)
    blocks = np.zeros((int(plan[-1, 0]) + 1 if len(plan) else 0, 4), np.uint16)
    fill_blocks(tokens, stops - lengths_D, lengths_D, plan, end=END, blocks_BT=blocks)
    ids = pa.array([f"id{first + d}" for d in range(len(lengths))], pa.string())
    columns = {"id": ids, "group": pa.array(groups, pa.string())}
    table = pa.table(columns | {"start": stops - lengths_D, "stop": stops, "bytes": lengths_D, "surface": lengths_D})
    types = (tokens % 7).astype(np.uint8) if with_types else None
    return Pack(blocks, plan, EncodedSplit(tokens, table), types)


def test_domains_alternate_and_every_position_knows_its_document() -> None:
    packs = {"a": pack([3, 6, 5, 1], ["g", "g", "h", "i"], 10), "b": pack([7, 2, 9], ["x", "y", "z"], 20)}
    block_set = draw_set(packs, 3, "probe", 0)
    assert block_set["tokens"].shape == block_set["document"].shape == block_set["types"].shape == (6, 4)
    assert block_set["domain"].tolist() == [0, 1, 0, 1, 0, 1]
    table = block_set["documents"]
    assert list(table.columns) == ["document", "domain", "id", "group", "bytes", "surface"]
    assert table["document"].tolist() == list(range(len(table)))
    for block, domain in enumerate(block_set["domain"]):
        for token, row, kind in zip(*(block_set[part][block] for part in ("tokens", "document", "types")), strict=True):
            assert table["domain"][row] == ["a", "b"][domain]
            if token == END:
                assert kind == 0
            else:
                assert table["id"][row] == f"id{token}"
                assert kind == token % 7
    # rows are numbered in order of first appearance, and every row has a position
    assert block_set["document"].reshape(-1)[0] == 0
    seen = list(dict.fromkeys(block_set["document"].reshape(-1).tolist()))
    assert seen == list(range(len(table)))


def test_sets_and_seeds_differ_and_are_the_same_again() -> None:
    packs = {"a": pack([30, 60, 50, 10], list("ghij"), 10, with_types=False)}
    first = draw_set(packs, 8, "test", 0)
    assert "types" not in first
    assert (draw_set(packs, 8, "test", 0)["tokens"] == first["tokens"]).all()
    assert (draw_set(packs, 8, "test", 1)["tokens"] != first["tokens"]).any()


def test_one_shard_gives_the_set_that_it_gave_before_there_were_shards() -> None:
    packs = {
        "a": pack([3, 6, 5, 1, 9, 2, 2, 1], list("gghijjkl"), 10),
        "b": pack([7, 2, 9, 4, 3], list("xyzzx"), 30),
    }
    block_set = draw_set(packs, 6, "test", 1)
    digest = hashlib.sha256()
    for part in ("tokens", "document", "domain", "types"):
        digest.update(block_set[part].tobytes())
    digest.update(block_set["documents"][["document", "domain", "id", "group"]].to_csv(index=False).encode())
    assert digest.hexdigest()[:16] == "30172461f6ee21d3"  # the digest from the code before shards were added


def in_full(main: np.ndarray, group: np.ndarray, *purpose: str | int) -> np.ndarray:
    """Return the whole order: by occurrence of the document, then occurrence of the group, then the shuffle."""

    def turns(labels: np.ndarray) -> np.ndarray:
        return np.array([(labels[:index] == label).sum() for index, label in enumerate(labels)], np.int64)

    order = permutation(len(main), *purpose)
    order = order[np.argsort(turns(main[order]), kind="stable")]
    return order[np.lexsort((turns(group[main[order]]), turns(main[order])))]


@pytest.mark.parametrize("portion", [1, 6, 1000])
def test_the_first_blocks_are_those_of_the_whole_order(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "CHUNK_ROWS", portion)
    for seed in range(4):
        draw = np.random.default_rng(seed)
        main, group = draw.integers(0, 12, 60), draw.integers(0, 4, 12)
        order = in_full(main, group, "test", seed)
        for count in (0, 1, 7, 30, 60, 90):
            assert choose_blocks(main, group, count, "test", seed).tolist() == order[:count].tolist()


def test_every_document_before_a_second_block_of_one() -> None:
    lengths = [39] * 5  # 10 blocks each, none shared
    plan = segments.concatenate_plan(
        concat.plan(options_of("data/packing", "concat")(kind="concat"), np.array(lengths), 4)
    )
    for seed in range(20):
        order = choose_blocks(main_documents(plan, 4), np.arange(5), 50, "test", seed)
        assert sorted(order.tolist()) == list(range(50))
        documents = (order // 10).reshape(10, 5)
        assert (np.sort(documents, axis=1) == np.arange(5)).all()


def test_groups_alternate_among_documents_of_one_block() -> None:
    plan = segments.concatenate_plan(
        concat.plan(options_of("data/packing", "concat")(kind="concat"), np.array([3] * 30), 4)
    )
    group = np.array([0] * 20 + [1] * 5 + [2] * 5)
    for seed in range(20):
        order = choose_blocks(main_documents(plan, 4), group, 30, "test", seed)
        assert (np.sort(group[order[:15]].reshape(5, 3), axis=1) == np.arange(3)).all()


def test_the_main_document_of_a_block_has_most_of_it() -> None:
    plan = np.array([[0, 0, 7, 0], [0, 1, 3, 0], [1, 0, 3, 3], [1, 2, 5, 0], [2, 0, 5, 2]])
    # block 0: 7 once, 3 three times; block 1: 3 and 5 twice each, so the lower one; block 2: only 5
    order = choose_blocks(main_documents(plan, 4), np.arange(8), 3, "x")
    assert sorted(order[:2].tolist()) in ([0, 2], [1, 2])  # 3, 3, 5: one of the blocks with 3 comes last
    row, old = renumber_documents(np.array([[7, 3], [3, 5], [7, 5]]))
    assert row.tolist() == [[0, 1], [1, 2], [0, 2]]
    assert old.tolist() == [7, 3, 5]


def test_too_few_blocks() -> None:
    assert blocks_per_domain("test", 5, {"a": 9, "b": 5}) == (5, [])
    blocks, warnings = blocks_per_domain("test", 5, {"a": 9, "b": 4})
    assert blocks == 4
    assert warnings == ["held_out.test_blocks: b has 4 blocks, not 5; every domain gives 4"]
    with pytest.raises(ValueError, match=r"domains.b: too small for one block of the test split \(blocks: a 9, b 0\)"):
        blocks_per_domain("test", 5, {"a": 9, "b": 0})
