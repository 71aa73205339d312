"""Test layer groups, the short form of exceptions in study files."""

import json
import pathlib
from typing import Any

import pytest

from speciate.config.extends import merge, read_yaml
from speciate.config.run import canonical_json
from speciate.config.study import Study, parse_study

ROOT = pathlib.Path(__file__).parents[2]
ATTENTION = {"kind": "attention", "num_heads": 4}
DENSE = {"kind": "dense", "hidden": 64, "activation": "gelu"}
EXPERTS = {"kind": "moe", "num_experts": 4, "hidden": 32, "router": "learned", "balance": "none"}
MOD = {"kind": "mod", "capacity": 0.5}
GROUPS = {
    "experts": {"layers": [1, 3], "block": {"ffn": EXPERTS}},
    "skipped": {"layers": [2], "block": {"depth": MOD}},
}
BASE = {"model": {"block": {"mixer": ATTENTION, "ffn": DENSE, "depth": "every"}}}


def study(base: dict[str, Any], **changes: dict[str, Any]) -> Study:
    """Make the default study with other ablations: `plain`, and one for each of `changes`."""
    settings = read_yaml(ROOT / "studies/three_selectors.yaml")
    del settings["base"]["model"]["block"], settings["hypotheses"]
    arms = {"plain": {}, **changes}
    return parse_study(
        {
            **settings,
            "base": merge(settings["base"], base),
            "ablations": {name: {"about": name, "change": change} for name, change in arms.items()},
            "analysis": {"reference": "plain"},
        },
        "study",
    )


def test_groups_give_the_same_study_as_exceptions_written_whole() -> None:
    whole = [
        {"layers": [1, 3], "block": {"mixer": ATTENTION, "ffn": EXPERTS, "depth": "every"}},
        {"layers": [2], "block": {"mixer": ATTENTION, "ffn": DENSE, "depth": MOD}},
    ]
    short = study(merge(BASE, {"model": {"layer_groups": GROUPS}}))
    assert canonical_json(short) == canonical_json(study(merge(BASE, {"model": {"exceptions": whole}})))
    assert "layer_groups" not in canonical_json(short)


def test_an_ablation_changes_one_key_of_one_group() -> None:
    base = merge(BASE, {"model": {"layer_groups": GROUPS}})
    found = study(base, narrow={"model": {"layer_groups": {"experts": {"block": {"ffn": {"hidden": 16}}}}}})
    usual, narrow = (json.loads(canonical_json(found.run(name, 0)))["model"] for name in ("plain", "narrow"))
    assert usual["exceptions"][0]["block"]["ffn"]["hidden"] == 32
    usual["exceptions"][0]["block"]["ffn"]["hidden"] = 16
    assert narrow == usual


def test_a_groups_block_follows_what_an_ablation_changes_in_the_models_block() -> None:
    base = merge(BASE, {"model": {"layer_groups": GROUPS}})
    run = study(base, heads={"model": {"block": {"mixer": {"num_heads": 2}}}}).run("heads", 0)
    assert [run.model.block_of(layer).mixer.model_dump()["num_heads"] for layer in range(4)] == [2, 2, 2, 2]
    assert [run.model.block_of(layer).ffn.kind for layer in range(4)] == ["dense", "moe", "dense", "moe"]


def test_an_ablation_adds_and_removes_groups() -> None:
    base = merge(BASE, {"model": {"layer_groups": {"experts": GROUPS["experts"]}}})
    found = study(
        base,
        both={"model": {"layer_groups": {"skipped": GROUPS["skipped"]}}},
        neither={"model": {"layer_groups": {"experts": None}}},
    )
    kinds = {
        name: [(block.ffn.kind, block.depth.kind) for block in map(found.run(name, 0).model.block_of, range(4))]
        for name in found.ablations
    }
    dense, experts, skipped = ("dense", "every"), ("moe", "every"), ("dense", "mod")
    assert kinds["plain"] == [dense, experts, dense, experts]
    assert kinds["both"] == [dense, experts, skipped, experts]
    assert kinds["neither"] == [dense] * 4


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": {"layers": [0], "block": {"mixer": {"heads": 2}}}}, "a.block.mixer.heads: unknown key"),
        ({"a": {"layers": [0], "blok": {}}}, "a.blok: unknown key"),
        ({"a": {"block": {}}}, "a.layers: is missing"),
        ({"a": {"layers": [0, 9]}}, r"a.layers: layers \[9\] do not exist in a model of 4"),
        ({"a": {"layers": [0, 1]}, "b": {"layers": [1]}}, r"b.layers: layers \[1\] are also in another group"),
        ({"a": {"layers": [0], "block": {"ffn": {"kind": "dens"}}}}, "a.block.ffn: 'dens' is not a kind of model/ffn"),
    ],
)
def test_a_wrong_group_is_named_with_its_field(groups: dict[str, Any], message: str) -> None:
    for where, base, change in (
        ("base", {"layer_groups": groups}, {}),
        ("ablations.arm", {}, {"model": {"layer_groups": groups}}),
    ):
        with pytest.raises(ValueError, match=f"^study: {where}.model.layer_groups.{message}"):
            study(merge(BASE, {"model": base}), arm=change)


def test_groups_and_exceptions_do_not_mix() -> None:
    whole = [{"layers": [0], "block": BASE["model"]["block"]}]
    with pytest.raises(
        ValueError, match=r"base\.model\.layer_groups: cannot be combined with exceptions; give one or the other"
    ):
        study(merge(BASE, {"model": {"layer_groups": GROUPS, "exceptions": whole}}))
    with pytest.raises(ValueError, match="must be a mapping of names to groups"):
        study(merge(BASE, {"model": {"layer_groups": [1]}}))


def test_the_blame_for_a_wrong_block_is_not_a_groups() -> None:
    base = merge(BASE, {"model": {"block": {"mixer": {"heads": 2}}, "layer_groups": GROUPS}})
    with pytest.raises(ValueError, match=r"ablations\.plain\.model\.block\.mixer\.heads: unknown key"):
        study(base)
