"""Train every arm of these studies for some steps; observe, save, read back and evaluate it."""

import functools
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from speciate.config.components import component_module
from speciate.config.extends import merge, read_yaml
from speciate.config.run import RunSpec, canonical_json
from speciate.config.study import Study, parse_study
from speciate.data.blocks import read_block_set
from speciate.evaluation.likelihood import nll_by_document
from speciate.selection.selection import selectors
from speciate.stages import evaluate
from speciate.stages import train as verb
from speciate.training.checkpoint.load_run import load_run
from speciate.training.prepare import initial_model

ROOT = pathlib.Path(__file__).parents[2]
STUDIES = ("moe", "hybrid", "attention", "diffusion", "upcycle")
SHORT: dict[str, Any] = {
    "training": {"num_steps": 2},
    "telemetry": {"every": 1, "early_every": 1, "probe_blocks": 2, "validation_every": 2},
}


class Never:
    """Never ask to stop."""

    received = None

    def __bool__(self) -> bool:
        return False


@functools.cache
def settings(name: str) -> dict[str, Any]:
    return merge(read_yaml(ROOT / "studies" / f"{name}.yaml"), {"block_length": 16, "base": SHORT})


@functools.cache
def study(name: str) -> Study:
    return parse_study(settings(name), name)


ARMS = [(name, arm) for name in STUDIES for arm in study(name).ablations]


def run_of(name: str, arm: str) -> RunSpec:
    """Return the arm's run at eight blocks a step; the tests' mixture has two domains."""
    run = study(name).run(arm, 0)
    change: dict[str, Any] = {"training": {"blocks_per_step": 8, **SHORT["training"]}}
    mixer = run.model.block.mixer
    if mixer.kind == "gsa":  # blocks here have 16 tokens
        budget = mixer.budget.model_dump()  # type: ignore[attr-defined]
        fewer = {"k": 4, "k_min": 2, "k_max": 8}
        change["model"] = {"block": {"mixer": {"budget": {key: fewer[key] for key in budget if key in fewer}}}}
    if arm == "oracle":
        change["model"] = {"block": {"ffn": {"router": {"domains": 2}}}}
    return RunSpec.model_validate(merge(json.loads(canonical_json(run)), change))


def trained(run: RunSpec, mixture: pathlib.Path, folder: pathlib.Path, start: pathlib.Path | None = None) -> None:
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(canonical_json(run))
    assert verb.train(run, mixture, folder, folder / "checkpoints", stop=Never(), start=start)  # type: ignore[arg-type]
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


@pytest.mark.parametrize(("name", "arm"), ARMS)
def test_an_arm_trains_and_is_evaluated(mixture: pathlib.Path, tmp_path: pathlib.Path, name: str, arm: str) -> None:
    run, start = run_of(name, arm), None
    if run.parent is not None:
        trained(run_of(name, run.parent), mixture, tmp_path / "parent")
        start = tmp_path / "parent" / "model.safetensors"
    trained(run, mixture, tmp_path / "run", start)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    _, model = load_run(tmp_path / "run", 64)
    initial = initial_model(run, 64, start).state_dict()
    moved = [name for name, weight in model.state_dict().items() if not torch.equal(weight, initial[name])]
    assert "token_embedding.weight" in moved
    objective = component_module(run.objective).Objective(run.objective)
    test = nll_by_document(model, objective, read_block_set(mixture, "test"), np.ones(64, dtype=np.int32))
    assert np.isfinite(test["nats"]).all()
    arrays, measured = evaluate.probe_selectors(model, objective, read_block_set(mixture, "probe"))
    wanted = {
        hypothesis.statistic.removeprefix("measured.")
        for hypothesis in study(name).hypotheses.values()
        if arm in (hypothesis.arm, hypothesis.reference) and hypothesis.statistic.startswith("measured.")
    }
    # `evaluate` itself measures the acceptance of drafts, on texts
    assert wanted - {"acceptance"} <= {str(row[1]) for row in measured}
    assert {path for path in selectors(model) if path in arrays or f"{path}/probs_GS" in arrays} == set(
        selectors(model)
    )
    for path in (key.removesuffix("/probs_GS") for key in arrays if key.endswith("/probs_GS")):
        decided = arrays[f"{path}/decisions_G"].sum()
        for kind in ("probs", "chosen", "null"):
            np.testing.assert_allclose(arrays[f"{path}/{kind}_GS"].sum(), decided, rtol=1e-4)
