"""Test what a study may contain, and the errors when it may not."""

import pathlib
from typing import Any

import pytest

from speciate.config.extends import merge, read_yaml
from speciate.config.study import parse_study, read_study

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return read_yaml(ROOT / "studies/three_selectors.yaml")


def refused(settings: dict[str, Any], change: dict[str, Any]) -> str:
    """Return the message that refuses a changed study."""
    with pytest.raises(ValueError) as caught:
        parse_study(merge(settings, change), "config.yaml")
    return str(caught.value)


def test_the_default_and_the_smoke_study_have_their_names() -> None:
    assert read_study(ROOT / "config.yaml").study == "default"
    assert read_study(ROOT / "studies/smoke.yaml").study == "smoke"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokeniser": "bpe"}, "config.yaml: tokeniser: unknown key"),
        ({"block_length": "128"}, "config.yaml: block_length: input should be a valid integer, not '128'"),
        ({"seeds": [0, 0]}, "config.yaml: seeds: [0, 0] names a seed twice"),
        ({"seeds": []}, "seeds: "),
        ({"domains": {}, "packing": "best_fti"}, "packing: 'best_fti' is not a kind of data/packing; available: "),
        ({"analysis": {"reference": "nothing"}}, "analysis.reference: no ablation is called nothing"),
        ({"hypotheses": {"learned": {"arm": "frosen"}}}, "hypotheses.learned: no ablation is called frosen"),
        (
            {"mixture": {"kind": "split_domain", "domain": "cod"}},
            "mixture.domain: the study has no domain cod, only code, math, prose",
        ),
        (
            {"mixture": {"kind": "weights", "weights": {"code": 4}}},
            "mixture.weights: needs one for each of code, math, prose, not for code",
        ),
        ({"base": {"modle": {}}}, "ablations.dense.modle: unknown key"),
        ({"base": {"model": {"context": 64}}}, "model.context 64 is shorter than block_length 128"),
        ({"base": {"training": {"grad_accumulation": 3}}}, "grad_accumulation: 3 does not divide 16 blocks_per_step"),
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
        ({"base": {"optimizer": {"rate": 0.1}}}, "ablations.dense.optimizer.rate: unknown key; it is called lr now"),
        (
            {"base": {"optimizer": {"rate_scales": {}}}},
            "optimizer.rate_scales: unknown key; it is called lr_scales now",
        ),
        (
            {"base": {"optimizer": {"kind": "muon", "lr": 0.1, "adamw_rate": 0.1}}},
            "optimizer.adamw_rate: unknown key; it is called adamw_lr now",
        ),
        ({"base": {"training": {"clip": 1.0}}}, "training.clip: unknown key; it is called max_grad_norm now"),
        ({"base": {"training": {"accumulation": 2}}}, "accumulation: unknown key; it is called grad_accumulation now"),
        (
            {"base": {"start": {"kind": "teacher", "origin": {"kind": "run", "ablation": "dense"}}}},
            "start: 'teacher' is not a kind of training/init/start; it is called oracle_model now; available: ",
        ),
        # a current option of other kinds in the same folder is not an old name
        (
            {"base": {"model": {"block": {"ffn": {"balance": {"rate": 0.1}}}}}},
            "balance.rate: unknown key of auxiliary; bias has it",
        ),
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
    study = parse_study(settings, "config.yaml")
    base = study.run("auxiliary", 0).model_dump()
    changed = study.run("auxiliary_fast", 0).model_dump()
    assert changed["optimizer"].pop("lr_scales") == {"*.router.*": 10.0}
    base["optimizer"].pop("lr_scales")
    assert {**changed, "ablation": ""} == {**base, "ablation": ""}


@pytest.mark.parametrize("name", ["moe", "hybrid", "attention", "diffusion"])
def test_every_arm_of_a_family_is_the_subject_of_a_hypothesis(name: str) -> None:
    study = read_study(ROOT / "studies" / f"{name}.yaml")
    assert set(study.ablations) == {hypothesis.arm for hypothesis in study.hypotheses.values()}
