"""Test that docs/selectors.md has valid examples, and that its hypotheses, arms, kinds and files exist."""

import pathlib
import re
from typing import Any

import pytest
import yaml

from speciate.config.components import kinds_in
from speciate.config.extends import merge, read_yaml
from speciate.config.run import RunSpec
from speciate.config.study import read_study

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "selectors.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
FAMILIES = ("moe", "upcycle", "hybrid", "attention", "diffusion")
OTHERS = ("three_selectors", "hysteresis", "factorial")
"""Further studies whose arms and hypotheses the page names."""
NO_SELECTOR = ("mtp4_published", "muon_published")
"""Arms that are as published but have no selector."""
SLOTS = {
    **{key: f"model/{key}" for key in ("mixer", "ffn", "depth")},
    **{key: f"model/moe/{key}" for key in ("router", "choice", "balance")},
    **{key: f"model/sparse_attention/{key}" for key in ("indexer", "budget")},
    "importance": "training/diffusion/importance",
}
"""Key of a study file -> the folder of its kinds."""


def study(name: str) -> Any:
    return read_study(ROOT / f"studies/{name}.yaml")


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_an_ablation_over_the_base_that_the_page_names(example: str) -> None:
    change = yaml.safe_load(example)
    base = read_yaml(ROOT / "studies/three_selectors.yaml")["base"]
    assert RunSpec.model_validate({**merge(base, change), "ablation": "example", "seed": 0})


def test_every_family_has_an_example() -> None:
    assert len(EXAMPLES) == PAGE.count("\n## ") - 1 == 5


@pytest.mark.parametrize("family", [*OTHERS, *FAMILIES])
def test_its_hypotheses_are_there(family: str) -> None:
    named = set(re.findall(rf"`{family}/([a-z0-9_]+)`", PAGE))
    assert named
    assert named <= set(study(family).hypotheses)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_selector_as_published_stands_with_what_is_predicted_of_it(family: str) -> None:
    ablations, hypotheses = study(family).ablations, study(family).hypotheses
    for name in [name for name, arm in ablations.items() if arm.published and name not in NO_SELECTOR]:
        assert f"`{name}`" in PAGE
        about_it = [f"`{family}/{hypothesis}`" for hypothesis, spec in hypotheses.items() if spec.arm == name]
        assert any(hypothesis in PAGE for hypothesis in about_it)


def test_every_arm_in_a_table_is_an_ablation() -> None:
    arms = {arm for family in (*OTHERS, *FAMILIES) for arm in study(family).ablations}
    rows = re.findall(r"^\| (.+) \| (.+) \| .+ \| `[a-z]+/.+ \|$", PAGE, re.MULTILINE)
    assert len(rows) > 10
    assert {arm for row in rows for cell in row for arm in re.findall(r"`([a-z0-9_]+)`", cell)} <= arms


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`((?:model|training|evaluation)/[a-z_/]+\.py)`", PAGE))))
def test_every_file_exists(file: str) -> None:
    assert (ROOT / "src" / "speciate" / file).is_file()


def kinds_named(page: str, key: str) -> list[str]:
    """Return the kinds in the one row of a table that is about `key`; what stands in parentheses are their options."""
    (row,) = re.findall(rf"^\| `{key}` \| (.+) \|$", page, re.MULTILINE)
    outside = re.sub(r"\([^()]*(?:\([^()]*\)[^()]*)*\)", "", row)
    return re.findall(r"`([a-z0-9_]+)`", outside)


@pytest.mark.parametrize("key", SLOTS)
def test_every_kind_is_named(key: str) -> None:
    assert sorted(kinds_named(PAGE, key)) == sorted(kinds_in(SLOTS[key]))


def test_a_kind_counts_as_named_only_in_the_row_of_its_slot() -> None:
    row = "| `router` | `learned` (`shape: mlp`, [`frozen`](#frozen)), `oracle` |"
    page = f"Routers: `hash`, kind: frozen.\n{row}\n| `balance` | `hash` |\n"
    assert kinds_named(page, "router") == ["learned", "oracle"]


ADDITIONS = re.findall(
    r"^\| an? (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE.split("## How to add one")[1], re.MULTILINE
)


@pytest.mark.parametrize(("defines", "bases"), [row[2:] for row in ADDITIONS], ids=[row[0] for row in ADDITIONS])
def test_what_a_component_defines_is_named_in_its_base_or_contract(defines: str, bases: str) -> None:
    package = ROOT / "src" / "speciate"
    files = [package / base for base in re.findall(r"`([^`]+)`", bases)]
    source = "\n".join(
        file.read_text()
        for file in [*files, package / "config/components.py", *(package / "config/contracts").glob("*.py")]
    )
    names = re.findall(r"`([A-Za-z_]+)(?:\([^`]*\))?`", defines)
    assert names
    assert [name for name in names if not re.search(rf"\b{name}\b", source)] == []


def test_every_slot_of_the_selectors_has_a_row() -> None:
    assert len(ADDITIONS) == 9
