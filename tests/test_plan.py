"""The study as a graph of paths: what a change moves, and what it leaves where it is."""

import pathlib
import typing
from typing import Any

import pytest

from speciate import plan, spec
from speciate.analysis import tables
from speciate.plan import Plan

ROOT = pathlib.Path(__file__).parents[1]
STAGES = ("fetch", "clean", "split", "fit", "encode", "pack", "balance")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return spec.read_yaml(ROOT / "config.yaml")


def make(settings: dict[str, Any], change: dict[str, Any] | None = None) -> Plan:
    study = spec.parse_study(spec.merge(settings, change or {}), "config.yaml")
    return Plan(study, pathlib.Path("results"))


def folders(one: Plan) -> dict[str, pathlib.Path]:
    """Every data stage's folder, by stage/name."""
    found = [path.parent for path in one.specs() if path.parts[1] == "data"]
    return {f"{folder.parent.name}/{folder.name.rsplit('-', 1)[0]}": folder for folder in found}


def moved(settings: dict[str, Any], change: dict[str, Any]) -> set[str]:
    before, after = folders(make(settings)), folders(make(settings, change))
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_a_pin_moves_its_domain_and_what_is_fitted_to_all(settings: dict[str, Any]) -> None:
    change = {"domains": {"code": {"sources": {"sphinx": {"sha256": "0" * 64}}}}}
    domains = ("code", "math", "prose")
    assert moved(settings, change) == {
        *("fetch/sphinx", "clean/code", "split/code", "fit/tokenizer", "balance/mixture"),
        *(f"{stage}/{domain}" for stage in ("encode", "pack") for domain in domains),
    }


def test_held_out_sizes_move_the_mixture_alone(settings: dict[str, Any]) -> None:
    assert moved(settings, {"held_out": {"probe_blocks": 8}}) == {"balance/mixture"}


def test_studies_with_the_same_data_share_it(settings: dict[str, Any]) -> None:
    assert moved(settings, {"study": "other", "seeds": [5], "ablations": {"top2": None}}) == set()


def test_a_published_tokenizer_is_fetched_like_a_source(settings: dict[str, Any]) -> None:
    one = make(settings, {"tokenizer": {"kind": "gpt2"}})
    assert "tokenizer" in one.sources
    assert one.tokenizer_archive == [one.folder("fetch", "tokenizer") / "archive"]
    assert make(settings).tokenizer_archive == []


def test_one_name_for_two_sources_is_refused(settings: dict[str, Any]) -> None:
    wikipedia = settings["domains"]["prose"]["sources"]["wikipedia"]
    with pytest.raises(ValueError, match="two different sources are called sphinx"):
        _ = make(settings, {"domains": {"prose": {"sources": {"sphinx": wikipedia}}}}).sources


def test_only_the_runs_of_an_edited_ablation_get_another_spec(settings: dict[str, Any]) -> None:
    change = {"ablations": {"bias": {"change": {"optimizer": {"rate": 0.5}}}}}
    before, after = make(settings).specs(), make(settings, change).specs()
    changed = {path.parts[3] for path in before if path.parts[2] == "runs" and before[path] != after[path]}
    assert changed == {"bias"}


def test_specs_are_rewritten_only_where_they_differ(settings: dict[str, Any], tmp_path: pathlib.Path) -> None:
    study = spec.parse_study(settings, "config.yaml")
    one = Plan(study, tmp_path)
    one.write_specs()
    files = sorted(tmp_path.rglob("*.json"))
    assert set(files) == set(one.specs())
    stamps = [file.stat().st_mtime_ns for file in files]
    files[3].write_text("{}")
    one.write_specs()
    assert [file.stat().st_mtime_ns for file in files[:3]] == stamps[:3]
    assert files[3].read_text() == spec.dump(one.specs()[files[3]])


def test_a_run_that_the_study_does_not_have_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="study default has no run auxiliary, seed 9"):
        make(settings).run("auxiliary", 9)


def test_the_rules_know_the_tables_that_the_analysis_writes() -> None:
    assert plan.MEASURED == tables.MEASURED
    assert plan.COMPARED == tables.COMPARED


def test_a_hypothesis_may_be_about_the_numbers_of_tables_runs() -> None:
    numbers = {
        name for name, kind in tables.COLUMNS["runs"].items() if kind.startswith(("float", "Float", "int", "Int"))
    }
    assert set(typing.get_args(spec.Statistic)) <= numbers
