"""Test the smoke study end to end: complete, a no-op the second time, and bit-identical when made again from nothing.

In `make test` only one seed is made again, from the archives to its measurements. What follows from those has tests of
its own (tests/stages/test_draw.py, tests/analysis/test_compare.py). A test marked slow makes all of it again.
"""

import base64
import gzip
import hashlib
import json
import pathlib
import re

import pandas as pd
import pytest
from tests.workflow.conftest import ROOT, Workspace

from speciate.config.study import read_study

TIMED = ("timing.json", "made_by.json")
"""The files of a run that say how fast it was."""


def test_everything_promised_is_there(finished: Workspace) -> None:
    results = finished.results
    assert 100_000 < (results / "report.html").stat().st_size < 1_500_000
    tables = {file.stem for file in (results / "tables").glob("*.csv")}
    assert {"runs", "selectors", "comparisons", "hypotheses"} <= tables
    assert tables == {file.stem for file in (results / "tables").glob("*.parquet")}
    figures = {file.stem for file in (results / "figures").glob("*.svg")}
    assert {"lift", "load", "information", "commitment", "loss_load", "token_types"} <= figures
    assert figures == {file.stem for file in (results / "figures").glob("*.png")}
    assert figures == {file.stem for file in (results / "figures" / "narrow").glob("*.svg")}


def test_the_report_is_one_offline_file(finished: Workspace) -> None:
    page = (finished.results / "report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page and "<script src" not in page and '<link rel="stylesheet"' not in page


def test_the_explorer_has_every_run_with_a_selector_and_its_steps(finished: Workspace) -> None:
    page = (finished.results / "explorer.html").read_text(encoding="utf-8")
    assert len(page) < 2_000_000 and 'href="explorer.html"' in (finished.results / "report.html").read_text()
    block = re.search(r'id="explorer-data">([^<]*)<', page)
    assert block is not None
    content = gzip.decompress(base64.b64decode(block[1]))
    head = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])
    study = read_study(ROOT / "studies" / "smoke.yaml")
    names = {f"{run.ablation.replace('_', ' ')}, seed {run.seed}" for run in study.runs() if run.ablation != "dense"}
    assert {model["name"] for model in head["models"]} == names
    steps = {tuple(check[0] for check in layer["checks"]) for model in head["models"] for layer in model["layers"]}
    assert len(steps) == 1 and len(steps.pop()) == 9
    assert {layer["kind"] for model in head["models"] for layer in model["layers"]} == set(head["kinds"])
    assert head["left_out"] == ["Earlier steps were observed on the first blocks of each domain only."]


def test_every_run_is_in_the_tables(finished: Workspace) -> None:
    runs = pd.read_parquet(finished.results / "tables" / "runs.parquet")
    models = finished.results.glob("runs/*/*/model.safetensors")
    assert sorted(zip(runs["ablation"], runs["seed"], strict=True)) == sorted(
        (model.parent.parent.name, int(model.parent.name.removeprefix("seed"))) for model in models
    )
    assert (runs["loss"] > 0).all()


def test_the_manifest_says_what_made_it(finished: Workspace) -> None:
    manifest = json.loads((finished.results / "manifest.json").read_text())
    for table in (finished.results / "tables").iterdir():
        assert manifest["tables"][table.name]["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert {"commit", "config_digest"} <= set(manifest)
    assert manifest["packages"]["numpy"] == manifest["environments"][0]["versions"]["numpy"]
    assert manifest["environments"][0]["runs"] == len(read_study(ROOT / "studies" / "smoke.yaml").runs())
    stages = {
        "fetch",
        "clean",
        "assign_splits",
        "fit",
        "encode",
        "pack",
        "balance",
        "train",
        "evaluate",
        "intervene",
        "swap",
        "measure",
        "compare",
    }
    assert stages <= {stage["stage"] for stage in manifest["stages"]}


def test_the_second_run_has_nothing_to_do(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.smoke("--cores", "2")


def test_a_seed_made_from_nothing_again_has_the_same_bytes(finished: Workspace, tmp_path: pathlib.Path) -> None:
    again = Workspace(tmp_path / "again")
    # these two run the code of `auxiliary`; the slow test makes them again too
    same_code = {"unbalanced_fast", "frozen"}
    arms = [arm for arm in read_study(ROOT / "studies" / "smoke.yaml").ablations if arm not in same_code]
    again.smoke("--cores", "2", "--", *(f"results/smoke/measures/{arm}/seed0/runs.parquet" for arm in arms))

    def made(where: Workspace) -> dict[str, bytes]:
        folders = [where.results / kind / arm / "seed0" for kind in ("runs", "measures") for arm in arms]
        files = (file for folder in folders for file in folder.rglob("*") if file.is_file() and file.name not in TIMED)
        return {str(file.relative_to(where.results)): file.read_bytes() for file in files}

    first, second = made(finished), made(again)
    assert sorted(first) == sorted(second)
    assert len([name for name in first if name.endswith("model.safetensors")]) == len(arms)
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.slow
def test_from_nothing_again_the_tables_have_the_same_bytes(finished: Workspace, tmp_path: pathlib.Path) -> None:
    again = Workspace(tmp_path / "again")
    again.smoke("--cores", "2")
    for folder in ("tables", "figures"):
        first = {file.name: file.read_bytes() for file in (finished.results / folder).iterdir()}
        second = {file.name: file.read_bytes() for file in (again.results / folder).iterdir()}
        assert sorted(first) == sorted(second)
        assert [name for name in first if first[name] != second[name]] == []


def test_no_job_leaves_a_checkpoint_or_a_half_written_file(finished: Workspace) -> None:
    left = [path for path in finished.results.rglob(".*") if path.name != ".snakemake_timestamp"]
    left += list((finished.results / "checkpoints").glob("*"))
    assert left == []


def test_the_slurm_profile_plans_the_same_jobs(finished: Workspace) -> None:
    local = finished.smoke("--dry-run", "--forceall", "--quiet", "reason")
    cluster = finished.smoke("--dry-run", "--forceall", "--quiet", "reason", "--workflow-profile", "profiles/slurm")
    stats = [output.split("Job stats:", 1)[1].split("\n\n", 1)[0] for output in (local, cluster)]
    assert stats[0] == stats[1]
