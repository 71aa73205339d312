"""Test that docs/seeds.md names the systems' studies, their arms, seeds, hypotheses and parameters as they are."""

import pathlib
import re

import pytest
from tests.systems.test_published_sizes import BY_HAND, SYSTEMS
from tests.tools.test_size import PARAMETERS, D

from speciate.config.study import read_study

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "seeds.md").read_text(encoding="utf-8")
ROWS = {match[1]: match[0] for match in re.finditer(r"^\| .*?\[`(\w+)\.yaml`\].*$", PAGE, re.MULTILINE)}
NUMBERS = {3: "three", 6: "six"}


def test_every_system_has_a_row_and_a_command() -> None:
    assert set(ROWS) == set(SYSTEMS)
    for study in SYSTEMS:
        assert f"make study ARGS='--configfile studies/{study}.yaml " in PAGE
        assert f"speciate size --study studies/{study}.yaml " in PAGE
        header = (ROOT / "studies" / f"{study}.yaml").read_text(encoding="utf-8").split("extends:")[0]
        (command,) = re.findall(r"^#   (make study .+)$", header, re.MULTILINE)
        assert f"\n{command}\n" in PAGE


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_row_counts_arms_seeds_and_hypotheses(name: str) -> None:
    study = read_study(ROOT / "studies" / f"{name}.yaml")
    row = ROWS[name]
    if "arms," in row:
        assert f"{len(study.ablations)} arms, {NUMBERS[len(study.seeds)]} seeds, {len(study.hypotheses)} hypoth" in row
    processes = {run.training.processes for run in study.runs()}
    assert {1: "a GPU", 4: "four GPUs", 8: "eight GPUs"}[processes.pop()] in row
    assert not processes


def test_parameters_are_those_counted_by_hand() -> None:
    found = re.findall(r"^\| `(\w+)\.yaml`, (\w+) \| ([\d,]+) \| ([\d,]+) \|", PAGE, re.MULTILINE)
    assert {study for study, *_ in found} == set(SYSTEMS)
    counted = {study: count() for study, (_, count) in BY_HAND.items()}
    for study, arm, *said in found:
        total, active = (int(number.replace(",", "")) for number in said)
        if study == "moe_arch":
            # counted by hand in tests/tools/test_size.py for 257 entries less; as released three heads have them too
            assert total == sum(PARAMETERS[arm].values()) + {"published": 4, "repaired": 1}[arm] * 257 * D
        else:
            assert (total, active) == counted[study][arm]
