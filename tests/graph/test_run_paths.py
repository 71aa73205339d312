"""Run one stage by hand: omitted paths follow from the spec's place in a study's results."""

import pathlib
import shutil
from collections.abc import Callable

import pytest

from speciate.cli import execute
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import DataFolders
from speciate.io import sha256

MakeRun = Callable[..., RunSpec]


@pytest.fixture
def results(mixture: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a results folder of a study that has made its mixture."""
    home = tmp_path / "results"
    shutil.copytree(mixture.parent, home / "data" / "balance")
    (home / "study" / "specs").mkdir(parents=True)
    folders = DataFolders(mixture="data/balance/mixture", tokenizer="data/fit/tokenizer", starts={})
    (home / "study" / "specs" / "folders.json").write_text(canonical_json(folders))
    return home


def place(results: pathlib.Path, spec: RunSpec) -> pathlib.Path:
    folder = results / "study" / "runs" / spec.ablation / f"seed{spec.seed}"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(canonical_json(spec))
    return folder / "spec.json"


def run(*arguments: str) -> None:
    execute(["train", *arguments])


def test_a_spec_is_all_that_a_run_needs(
    results: pathlib.Path,
    mixture: pathlib.Path,
    tmp_path: pathlib.Path,
    run_spec: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = place(results, run_spec())
    monkeypatch.chdir(spec.parent)
    run("--spec", "spec.json", "--sink", "tensorboard")
    named = ["--mixture-folder", str(mixture), "--output-folder", str(tmp_path / "named")]
    run("--spec", str(spec), *named, "--checkpoint-folder", str(tmp_path / "checkpoints"))
    for name in ("model.safetensors", "metrics.jsonl", "telemetry.safetensors"):
        assert sha256(spec.parent / name) == sha256(tmp_path / "named" / name)
    assert list((results / "study" / "sinks" / "tensorboard" / "small-seed0").iterdir())
    assert not list((results / "study" / "checkpoints").iterdir())


def test_a_run_starts_from_its_neighbour_of_the_same_seed(results: pathlib.Path, run_spec: MakeRun) -> None:
    ffn = {"kind": "dense", "hidden": 16}
    dense = place(results, run_spec(ablation="dense", model={"block": {"ffn": ffn}}))
    start = {"kind": "upcycle", "origin": {"kind": "run", "ablation": "dense"}}
    experts = place(results, run_spec(start=start))
    with pytest.raises(ValueError, match=r"dense/seed0/model\.safetensors"):
        run("--spec", str(experts))
    run("--spec", str(dense))
    run("--spec", str(experts))
    assert (experts.parent / "model.safetensors").is_file()


def test_what_is_not_there_is_named(results: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun) -> None:
    spec = place(results, run_spec())
    (tmp_path / "spec.json").write_text(canonical_json(run_spec()))
    with pytest.raises(
        ValueError,
        match=(
            "is not in results/<study>/runs/small/seed0, so name the paths on the command line: "
            r"--mixture-folder, --output-folder, --checkpoint-folder$"
        ),
    ):
        run("--spec", str(tmp_path / "spec.json"))
    shutil.rmtree(results / "data")
    with pytest.raises(ValueError, match=r"mixture\.json does not exist yet: `snakemake .*mixture\.json` makes it"):
        run("--spec", str(spec))
    (results / "study" / "specs" / "folders.json").unlink()
    with pytest.raises(
        ValueError, match=r"folders\.json: there is no such file, so name the paths on the command line: --mix"
    ):
        run("--spec", str(spec))
