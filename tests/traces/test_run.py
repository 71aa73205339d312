"""Test that a finished run of a study is read with the null of each selector, and only with its own texts."""

import json
import pathlib

import numpy as np
import pandas as pd
import pytest

from speciate.selection.tally import Tally
from speciate.traces.contract import ReadOptions
from speciate.traces.read import find_format, read_trace

safetensors_numpy = pytest.importorskip("safetensors.numpy")
RNG = np.random.default_rng(0)
DOCUMENT = np.array([[0, 0, 0, 1], [1, -1, 2, 2]])  # -1: padding
TOKEN = np.arange(10, 18).reshape(2, 4)
PATHS = {"blocks.1.depth.router": 2, "blocks.0.mixer.selector": 5, "parts.head1.block.ffn.router": 3}
CHOICE = {path: (RNG.random((8, slots)) < 0.5).astype(np.uint8) for path, slots in PATHS.items()}
CHOICE["blocks.1.depth.router"] = np.eye(2, dtype=np.uint8)[[0, 1, 1, 0, 0, 1, 1, 0]]
CHOICE["blocks.0.mixer.selector"][2] = 0  # no decision
TALLY = {
    path: Tally(*(RNG.random((3,) if name.endswith("_G") else (3, slots)) + 1 for name in Tally.__dataclass_fields__))
    for path, slots in PATHS.items()
}


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a run's folder in a study's results, with its mixture."""
    folder = tmp_path / "results" / "s" / "runs" / "arm" / "seed0"
    mixture = tmp_path / "results" / "data" / "mixture"
    specs = tmp_path / "results" / "s" / "specs"
    for made in (folder, mixture, specs):
        made.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"state": "finished"}))
    arrays = {f"{path}/choice": choice for path, choice in CHOICE.items()}
    for path, tally in TALLY.items():
        arrays |= {f"{path}/{name}": getattr(tally, name) for name in Tally.__dataclass_fields__}
    safetensors_numpy.save_file(arrays, folder / "probe.safetensors")
    (specs / "folders.json").write_text(json.dumps({"mixture": "data/mixture", "tokenizer": "t", "starts": {}}))
    np.save(mixture / "probe.document.npy", DOCUMENT.astype(np.int32))
    np.save(mixture / "probe.tokens.npy", TOKEN.astype(np.uint16))
    documents = {"document": [0, 1, 2], "domain": ["code", "prose", "code"], "id": list("xyz"), "group": list("gph")}
    pd.DataFrame(documents).to_parquet(mixture / "probe.documents.parquet")
    return folder


def test_a_run_keeps_its_sums_its_null_and_its_choices(run: pathlib.Path) -> None:
    assert find_format([run]) == ("run", [run])
    record = read_trace(run)
    assert record.documents[["document", "label", "group"]].to_numpy().tolist() == [
        ["x", "code", "g"],
        ["y", "prose", "p"],
        ["z", "code", "h"],
    ]
    layers = {"parts.head1.block.ffn.router": -1, "blocks.0.mixer.selector": 0, "blocks.1.depth.router": 1}
    assert {selector.path: selector.layer for selector in record.selectors} == layers
    sample = record.sample
    assert sample is not None
    assert sample.token_P.tolist() == [10, 11, 12, 13, 14, 16, 17]
    assert sample.position_P.tolist() == [0, 1, 2, 0, 1, 0, 1]
    for number, selector in enumerate(record.selectors):
        for name in Tally.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(selector.tally, name), getattr(TALLY[selector.path], name))
        rows = CHOICE[selector.path][[0, 1, 2, 3, 4, 6, 7]]
        for chosen, row in zip(sample.choice_LPK[number], rows, strict=True):
            assert chosen[chosen >= 0].tolist() == np.flatnonzero(row).tolist()
        counts = CHOICE[selector.path].reshape(2, 4, -1)[DOCUMENT >= 0].sum(axis=1)
        assert selector.num_chosen == pytest.approx(counts[counts > 0].mean())


def test_a_run_s_folder_may_stand_elsewhere(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mixture = run.parents[3] / "data" / "mixture"
    elsewhere = run.rename(tmp_path / "copy")
    assert len(read_trace(elsewhere, options=ReadOptions(mixture=mixture)).selectors) == 3
    with pytest.raises(ValueError, match=r"copy: is not in a study's results .*; name the run's mixture"):
        read_trace(elsewhere)


def test_a_run_and_texts_that_do_not_belong_together_are_refused(run: pathlib.Path) -> None:
    mixture = run.parents[3] / "data" / "mixture"
    np.save(mixture / "probe.document.npy", DOCUMENT[:1].astype(np.int32))
    with pytest.raises(ValueError, match="8 choices for 4 positions; the run and the mixture do not belong together"):
        read_trace(run)
    table = pd.read_parquet(mixture / "probe.documents.parquet")
    table.iloc[:2].to_parquet(mixture / "probe.documents.parquet")
    with pytest.raises(ValueError, match="decisions_G has 3 documents, not 2; the run and the mixture do not belong"):
        read_trace(run)
    (mixture / "probe.tokens.npy").unlink()
    with pytest.raises(ValueError, match=r"probe\.tokens\.npy: there is no such file; name the folder that `balance`"):
        read_trace(run)


def test_a_run_that_failed_is_refused(run: pathlib.Path) -> None:
    (run / "run.json").write_text(json.dumps({"state": "failed", "step": 7, "reason": "the loss is not finite"}))
    with pytest.raises(ValueError, match="the run failed at step 7: the loss is not finite"):
        read_trace(run)
