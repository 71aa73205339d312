"""The schema: what a study file may say, and what it is told when it may not."""

import json
import pathlib
from typing import Any

import pytest
import yaml

from speciate import spec
from speciate.kinds import kinds_in, kinds_within

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return spec.read_yaml(ROOT / "config.yaml")


def refused(settings: dict[str, Any], change: dict[str, Any]) -> str:
    """The message that a changed study is refused with."""
    with pytest.raises(ValueError) as caught:
        spec.parse_study(spec.merge(settings, change), "config.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    "file", ["config.yaml", *sorted(f"studies/{f.name}" for f in (ROOT / "studies").glob("*.yaml"))]
)
def test_every_study_that_ships_is_valid(file: str) -> None:
    study = spec.read_study(ROOT / file)
    assert len(study.runs()) == len(study.ablations) * len(study.seeds)


def test_the_default_and_the_smoke_study_have_their_names() -> None:
    assert spec.read_study(ROOT / "config.yaml").study == "default"
    assert spec.read_study(ROOT / "studies/smoke.yaml").study == "smoke"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokeniser": "bpe"}, "config.yaml: tokeniser: unknown key"),
        ({"block_length": "128"}, "config.yaml: block_length: input should be a valid integer, not '128'"),
        ({"seeds": [0, 0]}, "config.yaml: seeds: [0, 0] names one twice"),
        ({"seeds": []}, "seeds: "),
        ({"domains": {}, "packing": "best_fti"}, "packing: 'best_fti' is no kind of data/packing; there are: "),
        ({"analysis": {"reference": "nothing"}}, "analysis.reference: no ablation is called nothing"),
        ({"hypotheses": {"learned": {"arm": "frosen"}}}, "hypotheses.learned: no ablation is called frosen"),
        (
            {"mixture": {"kind": "split_domain", "domain": "cod"}},
            "mixture.domain: there is no domain cod; there are: code, math, prose",
        ),
        (
            {"mixture": {"kind": "weights", "weights": {"code": 4}}},
            "mixture.weights: needs one for each of code, math, prose, not for code",
        ),
        ({"base": {"modle": {}}}, "ablations.dense.modle: unknown key"),
        ({"base": {"model": {"context": 64}}}, "model.context 64 is shorter than block_length 128"),
        ({"base": {"training": {"accumulation": 3}}}, "accumulation: 3 does not divide 16 blocks_per_step"),
        (
            {"ablations": {"auxiliary_fast": {"change": {"model": {"block": {"ffn": {"top_k": 9}}}}}}},
            "ablations.auxiliary_fast.model.block.ffn",
        ),
        (
            {"ablations": {"auxiliary_fast": {"change": {"model": {"block": {"mixer": {"num_heads": 5}}}}}}},
            "ablations.auxiliary_fast.model: ",
        ),
        ({"ablations": {"Top 2": {"about": "x"}}}, "ablations.Top 2"),
        ({"split": {"test": 1.5}}, "split.test: input should be less than 0.5, not 1.5"),
    ],
)
def test_a_wrong_study_is_refused_by_a_message_that_names_the_field(
    settings: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    assert message in refused(settings, change)


def test_every_problem_is_told_at_once(settings: dict[str, Any]) -> None:
    message = refused(settings, {"tokeniser": 1, "block_length": 1})
    assert len(message.splitlines()) == 2


def test_an_ablation_is_exactly_its_difference(settings: dict[str, Any]) -> None:
    study = spec.parse_study(settings, "config.yaml")
    base = study.run("auxiliary", 0).model_dump()
    changed = study.run("auxiliary_fast", 0).model_dump()
    assert changed["optimizer"].pop("rate_scales") == {"*.router.*": 10.0}
    base["optimizer"].pop("rate_scales")
    assert {**changed, "ablation": ""} == {**base, "ablation": ""}


def test_merge_replaces_a_kind_whole_removes_on_none_and_alters_neither() -> None:
    base = {"a": {"kind": "x", "k": 1}, "b": {"c": 1, "d": 2}, "e": "x"}
    change = {"a": {"kind": "y"}, "b": {"c": None}, "e": {"k": 3}}
    before = json.dumps([base, change])
    assert spec.merge(base, change) == {"a": {"kind": "y"}, "b": {"d": 2}, "e": {"kind": "x", "k": 3}}
    assert spec.merge(base, {"a": {"k": 2}})["a"] == {"kind": "x", "k": 2}
    assert json.dumps([base, change]) == before


def test_a_run_survives_its_file(settings: dict[str, Any], tmp_path: pathlib.Path) -> None:
    run = spec.parse_study(settings, "config.yaml").run("sparse", 1)
    (tmp_path / "spec.json").write_text(spec.dump(run))
    assert spec.read_spec(spec.RunSpec, tmp_path / "spec.json") == run


def test_a_broken_spec_file_is_named(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "spec.json"
    for text in ("{", '{"seed": 1}'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"spec\.json"):
            spec.read_spec(spec.RunSpec, file)


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_a_study_file_that_is_no_mapping_is_named(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"study\.yaml"):
        spec.read_yaml(tmp_path / "study.yaml")


def test_a_study_may_extend_several_files_in_order(tmp_path: pathlib.Path) -> None:
    (tmp_path / "first.yaml").write_text("a: 1\nb: {c: 1, d: 1}\n")
    (tmp_path / "second.yaml").write_text("b: {c: 2}\n")
    (tmp_path / "study.yaml").write_text("extends: [first.yaml, second.yaml]\na: 3\n")
    assert spec.read_yaml(tmp_path / "study.yaml") == {"a": 3, "b": {"c": 2, "d": 1}}


def test_files_that_extend_each_other_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: [a.yaml]\n")
    with pytest.raises(ValueError, match=r"a\.yaml: extends: leads back to itself"):
        spec.read_yaml(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("extends: {a: b}\n")
    with pytest.raises(ValueError, match="extends: must be a file or a list of files"):
        spec.read_yaml(tmp_path / "c.yaml")


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"a": {"b": 1, "c": 2}}))
    (tmp_path / "below" / "study.yaml").write_text("extends: ../base.yaml\na: {c: null, d: 3}\n")
    assert spec.read_yaml(tmp_path / "below" / "study.yaml") == {"a": {"b": 1, "d": 3}}


def test_exceptions_give_layers_another_block(settings: dict[str, Any]) -> None:
    study = spec.parse_study(settings, "config.yaml")
    model = study.run("auxiliary", 0).model.model_dump()
    dense = {**model["block"], "ffn": {"kind": "dense", "hidden": 64}}
    mixed = spec.Model.model_validate({**model, "exceptions": [{"layers": [0, 2], "block": dense}]})
    assert [mixed.block_of(layer).ffn.kind for layer in range(4)] == ["dense", "moe", "dense", "moe"]
    with pytest.raises(ValueError, match=r"layers \[9\] do not exist in a model of 4"):
        spec.Model.model_validate({**model, "exceptions": [{"layers": [9], "block": dense}]})


def test_kinds_within_finds_nested_components(settings: dict[str, Any]) -> None:
    run = spec.parse_study(settings, "config.yaml").run("auxiliary", 0)
    modules = {options.module for options in kinds_within(run)}
    assert {"speciate.model.ffn.moe", "speciate.model.router.learned", "speciate.training.optimizer.adamw"} <= modules
    assert "hash" in kinds_in("model/router")


@pytest.mark.parametrize("name", ["moe", "hybrid", "attention", "diffusion"])
def test_every_arm_of_a_family_is_the_subject_of_a_hypothesis(name: str) -> None:
    study = spec.read_study(ROOT / "studies" / f"{name}.yaml")
    assert set(study.ablations) == {hypothesis.arm for hypothesis in study.hypotheses.values()}
