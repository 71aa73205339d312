"""Read a mixture over hand-made packs."""

import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pytest

from speciate.data.blocks import TrainBlocks, read_block_set
from speciate.data.packing import segments

LENGTH = 4


def pack(folder: pathlib.Path, blocks: list[list[int]], runs: list[list[tuple[int, int, int]]]) -> None:
    """Write a pack of `blocks`; `runs` has the (offset, document, position) of each segment of each block."""
    folder.mkdir(parents=True)
    np.save(folder / "train.blocks.npy", np.array(blocks, np.uint16).reshape(-1, LENGTH))
    rows = [(block, *run) for block, of_block in enumerate(runs) for run in of_block]
    np.save(folder / "train.pieces.npy", np.array(rows, np.int64).reshape(-1, 4))


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Write a mixture: domain a has 3 blocks, domain b has 2."""
    one_document = [(0, 0, 0)]
    of_a = [[(0, 3, 0), (1, 4, 0)], one_document, [(0, 0, 0), (2, 1, 0), (3, 0, 2)]]
    pack(tmp_path / "a", [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19, 20, 21]], of_a)
    pack(tmp_path / "b", [[30, 31, 32, 33], [34, 35, 36, 37]], [one_document, [(0, 7, 5)]])
    mixture = tmp_path / "mixture"
    mixture.mkdir()
    np.save(mixture / "train.npy", np.array([[0, 2], [1, 1], [0, 0], [1, 0], [0, 1]], np.int32))
    write(mixture)
    return mixture


def write(mixture: pathlib.Path, **changes: Any) -> None:
    names = ["a", "b"]
    values = {
        "domains": names,
        "labels": names,
        "block_length": LENGTH,
        "vocabulary": 64,
        "end_of_text": 0,
        "tokenizer_fingerprint": "none",
        "packs": {name: f"../{name}" for name in names},
        "train_blocks": {"a": 3, "b": 2},
        "epochs": {"a": 1.0, "b": 1.0},
        "held_out_blocks": {},
        "available_blocks": {"train": {"a": 3, "b": 2}},
        "imbalance": 1.5,
        "warnings": [],
    }
    (mixture / "mixture.json").write_text(json.dumps({**values, **changes}))


def test_the_mixture_says_which_block_is_which(folder: pathlib.Path) -> None:
    blocks = TrainBlocks(folder)
    assert len(blocks) == 5
    assert blocks.tokens(np.arange(5))[:, 0].tolist() == [18, 34, 10, 30, 14]
    assert blocks.tokens(np.array([4, 0, 4])).tolist() == [[14, 15, 16, 17], [18, 19, 20, 21], [14, 15, 16, 17]]


def test_documents_follow_the_segments(folder: pathlib.Path) -> None:
    blocks = TrainBlocks(folder)
    expected = [[0, 0, 1, 0], [7] * 4, [3, 4, 4, 4], [0] * 4, [0] * 4]
    assert blocks.documents(np.arange(5)).tolist() == expected
    assert blocks.documents(np.array([2, 0])).tolist() == [expected[2], expected[0]]


def test_a_packs_segments_are_indexed_once(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = segments.block_edges
    monkeypatch.setattr(segments, "block_edges", lambda *arguments: calls.append(arguments[1]) or real(*arguments))
    blocks = TrainBlocks(folder)
    for _ in range(3):
        blocks.tokens(np.arange(5))
    assert calls == []
    for _ in range(3):
        blocks.documents(np.arange(5))
    assert sorted(calls) == [2, 3]


def test_another_pack_than_the_mixtures_is_refused(folder: pathlib.Path) -> None:
    write(folder, available_blocks={"train": {"a": 1, "b": 2}})
    with pytest.raises(ValueError, match=r"mixture.json: a's pack has blocks of shape \(3, 4\), not \(1, 4\)"):
        TrainBlocks(folder)


def test_segments_of_other_blocks_are_refused(folder: pathlib.Path) -> None:
    np.save(folder.parent / "b" / "train.pieces.npy", np.zeros((1, 4), np.int64))
    blocks = TrainBlocks(folder)
    with pytest.raises(ValueError, match=r"b/train.pieces.npy: does not belong to the 2 blocks in its folder"):
        blocks.documents(np.arange(5))


def held_out(folder: pathlib.Path, labels: list[str]) -> None:
    """Write a held-out set of four blocks of three documents."""
    np.save(folder / "test.tokens.npy", np.arange(16, dtype=np.uint16).reshape(4, 4))
    document = [[0, 0, 1, 1], [2, 2, 2, 2], [1, 1, 1, 1], [2, 2, 2, 0]]
    np.save(folder / "test.document.npy", np.array(document, np.int32))
    np.save(folder / "test.domain.npy", np.zeros(4, np.int32))
    table = {"document": range(3), "domain": labels, "id": list("xyz"), "group": list("xyz")}
    pd.DataFrame(table).to_parquet(folder / "test.documents.parquet")


def test_a_positions_label_is_its_documents(folder: pathlib.Path) -> None:
    write(folder, labels=["b_1", "b_2"])
    held_out(folder, ["b_2", "b_1", "b_2"])
    block_set = read_block_set(folder, "test")
    assert block_set.domains == ("b_1", "b_2")
    assert block_set.label.tolist() == [[1, 1, 0, 0], [1] * 4, [0] * 4, [1] * 4]
    assert block_set.prefix(1).tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert block_set.prefix(1).label.tolist() == [[1, 1, 0, 0], [1] * 4]


def test_a_document_of_no_label_is_refused(folder: pathlib.Path) -> None:
    held_out(folder, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"test.documents.parquet: has domains that are not labels: c"):
        read_block_set(folder, "test")


def test_a_blocks_domain_is_its_place_in_the_mixture(folder: pathlib.Path) -> None:
    assert TrainBlocks(folder).domains(np.array([1, 4, 0, 3])).tolist() == [1, 0, 0, 1]
