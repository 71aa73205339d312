"""Test the shipped study files: each is valid, none deletes an inherited key, every part is used."""

import itertools
import pathlib
import re
from typing import Any

import pytest
import yaml

from speciate.config.extends import extended_files, read_yaml
from speciate.config.study import read_study

ROOT = pathlib.Path(__file__).parents[2]
STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]
PARTS = sorted((ROOT / "studies" / "parts").glob("*.yaml"))
CORPORA = sorted((ROOT / "studies" / "corpora").glob("*.yaml"))


def name_of(file: pathlib.Path) -> str:
    return file.relative_to(ROOT).as_posix()


def plain(file: pathlib.Path) -> Any:
    """Return the file's own keys, without those of the files that it extends."""
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def nulls(value: Any, path: str = "") -> list[str]:
    """Return the paths at which plain data hold None."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in nulls(item, f"{path}.{key}")]
    if isinstance(value, list):
        return [found for item in value for found in nulls(item, f"{path}[]")]
    return [path] if value is None else []


def files_below(file: pathlib.Path) -> set[pathlib.Path]:
    """Return every file that `file` extends, at any depth."""
    direct = {(file.parent / name).resolve() for name in extended_files(plain(file))}
    return direct.union(*(files_below(other) for other in direct)) if direct else direct


@pytest.mark.parametrize("file", STUDIES, ids=name_of)
def test_a_study_is_valid(file: pathlib.Path) -> None:
    study = read_study(file)
    assert len(study.runs()) == len(study.ablations) * len(study.seeds)


@pytest.mark.parametrize("file", [*STUDIES, *PARTS, *CORPORA], ids=name_of)
def test_no_file_deletes_a_key_that_it_inherits(file: pathlib.Path) -> None:
    assert nulls(plain(file)) == []


@pytest.mark.parametrize("file", STUDIES, ids=name_of)
def test_the_first_lines_say_what_a_study_asks(file: pathlib.Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert len("".join(comment)) > 100


def test_every_part_is_used_and_is_no_study_by_itself() -> None:
    used = {part for file in STUDIES for part in files_below(file)}
    assert PARTS
    assert set(PARTS) <= used
    for part in PARTS:
        assert "study" not in plain(part)


def test_the_default_study_is_whole_in_its_own_file_but_for_its_texts() -> None:
    own = plain(ROOT / "config.yaml")
    whole = read_yaml(ROOT / "config.yaml")
    assert set(whole) - set(own) == {"domains"}
    assert {key: whole[key] for key in own if key != "extends"} == {key: own[key] for key in own if key != "extends"}


def test_the_default_and_the_smoke_study_have_their_names() -> None:
    assert read_study(ROOT / "config.yaml").study == "default"
    smoke = read_study(ROOT / "studies/smoke.yaml")
    assert smoke.study == "smoke"
    # two seeds of seven arms: the study that shows that the workflow works must stay small
    assert len(list(smoke.runs())) == 14


def test_the_study_to_copy_inherits_nothing_that_nobody_asked_for() -> None:
    file = ROOT / "studies" / "own_text.yaml"
    own, study = plain(file), read_study(file)
    assert list(study.domains) == list(own["domains"])
    assert {source.kind for domain in study.domains.values() for source in domain.sources.values()} == {"files"}
    assert list(study.ablations) == list(own["ablations"]) == ["balanced", "frozen"]
    assert list(study.hypotheses) == list(own["hypotheses"])


@pytest.mark.parametrize("name", ["one_domain", "shuffled_labels", "imbalance"])
def test_a_variant_trains_the_default_studys_runs(name: str) -> None:
    default, variant = read_study(ROOT / "config.yaml"), read_study(ROOT / "studies" / f"{name}.yaml")
    runs = {(run.ablation, run.seed): run for run in default.runs()}
    assert all(runs[run.ablation, run.seed] == run for run in variant.runs())
    assert list(variant.ablations) == ["dense", "auxiliary", "unbalanced_fast", "auxiliary_fast", "frozen"]
    assert all(default.hypotheses[key] == hypothesis for key, hypothesis in variant.hypotheses.items())


def test_the_readme_names_every_study_and_part() -> None:
    readme = (ROOT / "studies" / "README.md").read_text(encoding="utf-8")
    families = ("diffusion_", "attention_")
    for file in [*STUDIES[1:], *PARTS]:
        name = file.relative_to(ROOT / "studies").as_posix()
        assert f"`{name}`" in readme or name.startswith(families), name


def families() -> list[str]:
    """Return the studies that `make families` runs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (names,) = re.findall(r"^FAMILIES := (.+)$", makefile, re.MULTILINE)
    return names.split()


@pytest.mark.parametrize("name", families())
def test_a_family_has_seeds_enough_and_predicts_how_each_published_arm_fails(name: str) -> None:
    study = read_study(ROOT / "studies" / f"{name}.yaml")
    assert len(study.seeds) >= 5
    predicted = {arm for hypothesis in study.hypotheses.values() for arm in hypothesis.arms}
    assert {arm for arm, change in study.ablations.items() if change.published} <= predicted
    # every arm is there for a question
    assert set(study.ablations) - {study.analysis.reference, *study.analysis.controls} <= predicted


def test_make_families_covers_every_kind_of_selector_and_the_readme_says_so() -> None:
    """A selector is a router of experts or projections, of depth, an indexer, an importance, or a start by copies."""
    runs = [run for name in families() for run in read_study(ROOT / "studies" / f"{name}.yaml").runs()]
    kinds = {run.start.kind for run in runs} | {run.objective.kind for run in runs}
    kinds |= {part.kind for run in runs for part in (run.model.block.mixer, run.model.block.ffn, run.model.block.depth)}
    assert {"moe", "rom", "mamba", "mod", "mod_published", "gsa", "masked_diffusion", "multi_token", "upcycle"} <= kinds
    readme = " ".join((ROOT / "studies" / "README.md").read_text(encoding="utf-8").split())
    sentence = re.search(r"`make families` runs (.+?)\. ", readme)
    assert sentence is not None
    assert set(re.findall(r"`(\w+)`", sentence[1])) == set(families())


SEEN = {"chains": set(range(10, 20)), "hysteresis": {1}, "dial": {1}, "noise_level": {1}, "chains_selectors": {1}}
"""Seeds of the pilots that suggested a study's predictions, which its own must not be."""


@pytest.mark.parametrize("name", ["hysteresis", "length", "factorial", "dial", "noise_level", "chains_selectors"])
def test_a_study_of_chains_decides_by_ten_seeds_that_nobody_had_seen(name: str) -> None:
    study = read_study(ROOT / "studies" / f"{name}.yaml")
    assert len(study.seeds) == 10
    assert not set(study.seeds) & (SEEN["chains"] | SEEN.get(name, set()))
    assert len(study.hypotheses) >= 8
