"""Train small runs, intervene in them by the verb, and read the tables."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from speciate.analysis import tables
from speciate.cli import execute
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import InterveneSpec
from speciate.data.blocks import read_block_set
from speciate.stages import intervene
from speciate.stages import train as verb
from speciate.training.checkpoint.load_run import load_run

MakeRun = Callable[..., RunSpec]


class Never:
    """Never ask to stop."""

    received = None

    def __bool__(self) -> bool:
        return False


def trained(run: RunSpec, mixture: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(canonical_json(run))
    assert verb.train(run, mixture, folder, folder / "checkpoints", stop=Never())  # type: ignore[arg-type]
    return folder


def spec(run: RunSpec, **changes: Any) -> InterveneSpec:
    settings = {"run": run, "blocks": 2, "max_slots": 8, "resamples": 19, "confidence": 0.95}
    return InterveneSpec.model_validate({**settings, "draw_seed": 0, **changes})


def test_the_verb_writes_the_costs_of_a_trained_run(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    folder = trained(run_spec(), mixture, tmp_path / "run")
    (tmp_path / "spec.json").write_text(canonical_json(spec(run_spec())))
    written = []
    for name in ("one", "two"):
        arguments = ["--spec", tmp_path / "spec.json", "--run-folder", folder, "--mixture-folder", mixture]
        execute(["intervene", *map(str, [*arguments, "--output", tmp_path / f"{name}.parquet"])])
        written.append((tmp_path / f"{name}.parquet").read_bytes())
    assert written[0] == written[1]
    rows = tables.read_table(tmp_path / "one.parquet", "interventions")
    kinds = rows[rows["selector"] == "blocks.0.ffn.router"].groupby("intervention")["slot"].nunique()
    assert kinds["load_matched"] == kinds["random_slots"] == kinds["top_slot"] == 1
    assert 1 <= kinds["masked_slot"] == kinds["masked_control"] <= 4
    assert rows["domain"].unique().tolist() == ["code", "prose", "all"]
    assert (rows["blocks"] == 4).all()
    assert rows[rows["domain"] == "all"]["tokens"].unique().tolist() == [4 * 15]
    assert rows["cost_nats"].notna().all()
    # the nats without an intervention are those of the model on these blocks
    run, model = load_run(folder, 64)
    blocks = read_block_set(mixture, "probe").prefix(2)
    objective = run.objective.component().Objective(run.objective)
    nats_BS = objective.token_nll(model, torch.from_numpy(blocks.tokens), torch.from_numpy(blocks.document).long())
    code = float(nats_BS[torch.from_numpy(blocks.domain) == 0].double().mean())
    assert rows[rows["domain"] == "code"]["clean_nats"].unique() == pytest.approx(code)


def test_more_blocks_than_there_are_means_all(mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    folder = trained(run_spec(), mixture, tmp_path / "run")
    rows = intervene.intervene(spec(run_spec(), blocks=99), folder, mixture)
    assert (rows["blocks"] == 8).all()


@pytest.mark.parametrize("kind", ["dense", "failed"])
def test_a_run_without_selectors_and_one_that_failed_have_no_rows(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, kind: str
) -> None:
    run = run_spec(model={"block": {"ffn": {"kind": "dense", "hidden": 16}}})
    if kind == "dense":
        folder = trained(run, mixture, tmp_path / "run")
    else:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps({"state": "failed", "reason": "diverged"}))
    rows = intervene.intervene(spec(run), folder, mixture)
    assert rows.empty
    assert list(rows.columns) == list(tables.COLUMNS["interventions"])


def test_another_tokenizers_mixture_is_refused(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    folder = trained(run_spec(), mixture, tmp_path / "run")
    facts = json.loads((folder / "run.json").read_text())
    facts["vocabulary"] = {"tokens": 64, "tokenizer": "f00d" * 10}
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"--mixture-folder: .* was encoded by tokenizer none, and the run"):
        intervene.intervene(spec(run_spec()), folder, mixture)


def test_masks_that_follow_no_importance_cost_nothing(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun
) -> None:
    """With `masking: uniform` the masks are already uniform, so their load-matched replacement changes no bit."""
    settings = {"kind": "masked_diffusion", "importance": "random", "masking": "uniform", "eval_draws": 4}
    base = run_spec().model_dump()
    block = {**base["model"]["block"], "ffn": {"kind": "dense", "hidden": 16}}
    model = {**base["model"], "causal": False, "block": block}
    costs = {}
    for masking in ("uniform", "importance"):
        run = RunSpec.model_validate({**base, "model": model, "objective": {**settings, "masking": masking}})
        rows = intervene.intervene(spec(run), trained(run, mixture, tmp_path / masking), mixture)
        assert rows["selector"].unique().tolist() == ["parts.importance"]
        assert rows["layer"].unique().tolist() == [-1]
        costs[masking] = rows.set_index("domain")["cost_nats"].to_dict()
    assert costs["uniform"] == pytest.approx({"code": 0.0, "prose": 0.0, "all": 0.0}, abs=1e-12)
    assert max(map(abs, costs["importance"].values())) > 0
    assert np.isfinite(rows["clean_nats"]).all()
