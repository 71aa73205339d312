"""Test a run's spec: its layers, its components, and its file."""

import pathlib

import pytest

from speciate.config.components import kinds_in, options_within
from speciate.config.run import ModelSpec, RunSpec, canonical_json, read_spec
from speciate.config.study import Study, read_study

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> Study:
    return read_study(ROOT / "studies/three_selectors.yaml")


def test_a_run_survives_its_file(study: Study, tmp_path: pathlib.Path) -> None:
    run = study.run("sparse", 1)
    (tmp_path / "spec.json").write_text(canonical_json(run))
    assert read_spec(RunSpec, tmp_path / "spec.json") == run


def test_a_broken_spec_file_is_named(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "spec.json"
    for text in ("{", '{"seed": 1}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"spec\.json"):
            read_spec(RunSpec, file)


def test_exceptions_give_layers_another_block(study: Study) -> None:
    model = study.run("auxiliary", 0).model.model_dump()
    dense = {**model["block"], "ffn": {"kind": "dense", "hidden": 64}}
    mixed = ModelSpec.model_validate({**model, "exceptions": [{"layers": [0, 2], "block": dense}]})
    assert [mixed.block_of(layer).ffn.kind for layer in range(4)] == ["dense", "moe", "dense", "moe"]
    with pytest.raises(ValueError, match=r"layers \[9\] do not exist in a model of 4"):
        ModelSpec.model_validate({**model, "exceptions": [{"layers": [9], "block": dense}]})


def test_kinds_within_finds_nested_components(study: Study) -> None:
    run = study.run("auxiliary", 0)
    modules = {options.module_name() for options in options_within(run)}
    assert {
        "speciate.model.ffn.moe",
        "speciate.model.moe.router.learned",
        "speciate.training.optimizer.adamw",
    } <= modules
    assert "hash" in kinds_in("model/moe/router")
