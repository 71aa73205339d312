"""Test the stage that swaps selectors between runs, on runs of a few steps."""

import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from speciate.analysis import tables
from speciate.cli import execute
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import SwapSpec
from speciate.stages import swap, train
from speciate.training.build_model import build_model
from speciate.training.checkpoint.load_run import load_run

ARMS: dict[str, dict[str, Any]] = {
    "dense": {"model": {"block": {"ffn": {"kind": "dense", "hidden": 16}}}},
    "learned": {"training": {"keep_steps": [4, 12]}},
    "frozen": {"model": {"block": {"ffn": {"router": "frozen", "balance": "none"}}}},
}
SPEC = SwapSpec(
    arms=tuple(ARMS), seeds=(0, 3), reference="learned", blocks=8, resamples=19, confidence=0.9, draw_seed=0
)


class Never:
    """Never ask to stop."""

    received = 15

    def __bool__(self) -> bool:
        return False


@pytest.fixture(scope="module")
def runs(
    mixture: pathlib.Path, tmp_path_factory: pytest.TempPathFactory, run_spec: Callable[..., RunSpec]
) -> pathlib.Path:
    """Train every arm with both seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for arm, change in ARMS.items():
        for seed in SPEC.seeds:
            checkpoints = folder / f"checkpoints-{arm}{seed}"
            spec = run_spec(ablation=arm, seed=seed, **change)
            assert train.train(spec, mixture, folder / arm / f"seed{seed}", checkpoints, stop=Never())
    return folder


@pytest.fixture(scope="module")
def rows(runs: pathlib.Path, mixture: pathlib.Path) -> pd.DataFrame:
    return swap.swap(SPEC, runs, mixture)


def loss(model: torch.nn.Module, mixture: pathlib.Path) -> float:
    """Return the mean over domains of the nats of a token, computed apart."""
    token_BT, document_BT = (
        torch.from_numpy(np.load(mixture / f"probe.{part}.npy").astype(np.int64)) for part in ("tokens", "document")
    )
    with torch.no_grad():
        logits = model(token_BT, document_BT)[:, :-1]
    nats_BS = F.cross_entropy(logits.flatten(0, 1).double(), token_BT[:, 1:].flatten(), reduction="none").view(8, -1)
    return float(np.mean([float(nats_BS[domain::2].mean()) for domain in (0, 1)]))


def test_every_run_gets_the_next_seeds_the_references_and_its_own_earlier_selectors(rows: pd.DataFrame) -> None:
    assert set(rows["ablation"]) == {"learned", "frozen"}, "a dense run has no selector to swap"
    of_all = rows[(rows["domain"] == "all") & (rows["selector"] == "all")]
    names = ["ablation", "seed", "donor", "other_ablation", "other_seed", "other_step", "relabelled"]
    found = set(of_all[names].itertuples(index=False, name=None))
    expected: set[tuple[object, ...]] = set()
    for seed, other in ((0, 3), (3, 0)):
        for arm, reference in (("learned", "frozen"), ("frozen", "learned")):
            expected |= {(arm, seed, "seed", arm, other, 12, matched) for matched in (False, True)}
            expected |= {(arm, seed, "arm", reference, seed, 12, False), (arm, seed, "step", arm, seed, 0, False)}
        expected.add(("learned", seed, "step", "learned", seed, 4, False))
    assert found == expected
    assert set(rows["domain"]) == {"code", "prose", "all"}
    assert set(rows["layer"]) == {-1, 0, 1}
    assert (rows["cost_low_nats"] <= rows["cost_high_nats"]).all()
    assert rows["blocks"].unique().tolist() == [8]


def test_a_cost_is_that_of_the_weights_of_both_put_together(
    rows: pd.DataFrame, runs: pathlib.Path, mixture: pathlib.Path
) -> None:
    weights = safetensors.torch.load_file(runs / "learned/seed3/model.safetensors")
    spec, model = load_run(runs / "learned/seed3", 64)
    clean = loss(model, mixture)
    for selector in ("blocks.0.ffn.router", "blocks.1.ffn.router", "all"):
        initial = build_model(spec, 64).state_dict()
        moved = {name for name in initial if ".router." in name and (selector == "all" or name.startswith(selector))}
        model.load_state_dict(weights | {name: initial[name] for name in moved})
        expected = loss(model, mixture) - clean
        row = rows[
            (rows["ablation"] == "learned")
            & (rows["seed"] == 3)
            & (rows["selector"] == selector)
            & (rows["donor"] == "step")
            & (rows["other_step"] == 0)
            & (rows["domain"] == "all")
        ]
        assert row["cost_nats"].tolist() == pytest.approx([expected], abs=2e-6)
        assert row["clean_nats"].tolist() == pytest.approx([clean], abs=2e-6)


def test_a_run_that_failed_gives_and_gets_nothing(
    runs: pathlib.Path, mixture: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    file = tmp_path / "runs/frozen/seed0/run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"state": "failed"}))
    (tmp_path / "spec.json").write_text(canonical_json(SPEC))
    command = ["swap", "--spec", tmp_path / "spec.json", "--runs", tmp_path / "runs", "--mixture-folder", mixture]
    execute([*map(str, command), "--output-folder", str(tmp_path / "tables")])
    rows = tables.read_table(tmp_path / "tables/swaps.parquet", "swaps")
    sides = rows[["ablation", "seed"]], rows[["other_ablation", "other_seed"]]
    assert not any(("frozen", 0) in set(side.itertuples(index=False, name=None)) for side in sides)
    assert set(rows["donor"]) == {"seed", "arm", "step"}
    assert len((tmp_path / "tables/swaps.csv").read_text().splitlines()) == len(rows) + 1


def test_with_one_seed_there_is_no_other() -> None:
    alone = SPEC.model_copy(update={"seeds": (0,)})
    assert list(swap.others(alone, ("frozen", 0))) == [("arm", ("learned", 0))]
    assert list(swap.others(alone, ("learned", 0))) == [("arm", ("dense", 0)), ("arm", ("frozen", 0))]
