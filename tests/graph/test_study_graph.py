"""Test the study as a graph of paths: which paths a change moves, and which it leaves in place."""

import pathlib
from typing import Any

import pytest

from speciate.analysis import load, tables
from speciate.config.components import options_of
from speciate.config.contracts.statistics import NAMES
from speciate.config.extends import merge, read_yaml
from speciate.config.run import RunSpec, canonical_json
from speciate.config.stage_specs import CompareTasksSpec, EvaluateTaskSpec, InterveneSpec, ReportSpec
from speciate.config.study import parse_study
from speciate.graph.study_graph import StudyGraph

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ("fetch", "clean", "assign_splits", "fit", "encode", "pack", "balance")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return read_yaml(ROOT / "studies/three_selectors.yaml")


def make(settings: dict[str, Any], change: dict[str, Any] | None = None) -> StudyGraph:
    study = parse_study(merge(settings, change or {}), "config.yaml")
    return StudyGraph(study, pathlib.Path("results"))


def folders(one: StudyGraph) -> dict[str, pathlib.Path]:
    """Return every data stage's folder, by stage/name."""
    found = [path.parent for path in one.specs() if path.parts[1] == "data"]
    return {f"{folder.parent.name}/{folder.name.rsplit('-', 1)[0]}": folder for folder in found}


def moved(settings: dict[str, Any], change: dict[str, Any]) -> set[str]:
    before, after = folders(make(settings)), folders(make(settings, change))
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_a_pin_moves_its_domain_and_what_is_fitted_to_all(settings: dict[str, Any]) -> None:
    change = {"domains": {"code": {"sources": {"sphinx": {"sha256": "0" * 64}}}}}
    domains = ("code", "math", "prose")
    assert moved(settings, change) == {
        *("fetch/sphinx", "fit/tokenizer", "balance/mixture"),
        *(f"{stage}/code" for stage in ("clean", "sort", "sign", "cluster", "assign_splits", "write_splits", "sketch")),
        *(f"{stage}/{domain}" for stage in ("encode", "pack") for domain in domains),
    }


def test_another_similarity_leaves_what_was_read_where_it_is(settings: dict[str, Any]) -> None:
    near = {"domains": {"code": {"duplicates": "near"}}}
    settings = merge(settings, near)
    assert moved(settings, {"duplicates": {"similarity": 0.7}}) == {
        *("fit/tokenizer", "balance/mixture"),
        *(f"{stage}/code" for stage in ("sign", "bucket", "cluster", "assign_splits", "write_splits", "sketch")),
        *(f"{stage}/{domain}" for stage in ("encode", "pack") for domain in ("code", "math", "prose")),
    }


def test_across_domains_all_are_compared_at_once(settings: dict[str, Any]) -> None:
    one = make(settings, {"domains": {"code": {"duplicates": "near"}}, "duplicates": {"across_domains": True}})
    assert one.scopes == {"domains": ["code", "math", "prose"]}
    assert [spec.near is not None for path, spec in one.specs().items() if path.parts[2] == "sign"] == [True] * 3
    assert {path.parts[3].split("-")[0] for path in one.specs() if path.parts[2] == "bucket"} == {"domains"}


def test_shards_spread_the_stages_of_one_domain(settings: dict[str, Any]) -> None:
    one = make(settings, {"domains": {"math": {"shards": 3}}})
    assert one.shards("math") == ["0-of-3", "1-of-3", "2-of-3"]
    assert [path.name for path in one.parts("encode", "math")] == one.shards("math")
    # every shard of `sort` gathers its part of all that was cleaned, and one job packs the domain
    cleaned = [pathlib.Path(path) for path in one.inputs("sort", "math", "2-of-3")["clean"]]
    assert {path.parent.name for path in cleaned} == set(one.shards("math"))
    assert one.parts("pack", "math") == [one.folder("pack", "math")]
    # a generator cannot be split: it is fetched once, and each shard reads its part of it
    assert one.fetches("gsm_symbolic") == ["0-of-1"]
    assert {pathlib.Path(path).parent.name for path in one.inputs("clean", "math", "2-of-3")["fetch"]} == {"0-of-1"}


def test_the_users_own_files_are_inputs(settings: dict[str, Any], tmp_path: pathlib.Path) -> None:
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "a.txt").write_text("a")
    mine = {"kind": "files", "paths": [f"{tmp_path}/*.txt"]}
    one = make(settings, {"domains": {"mine": {"sources": {"papers": mine}, "shards": 2}}})
    assert one.local_files("papers") == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert one.fetches("papers") == ["0-of-2", "1-of-2"]
    missing = make(settings, {"domains": {"mine": {"sources": {"papers": {**mine, "paths": ["no/such/*.txt"]}}}}})
    with pytest.raises(ValueError, match=r"source papers: paths: no file matches no/such/\*\.txt"):
        missing.local_files("papers")


def test_held_out_sizes_move_the_mixture_alone(settings: dict[str, Any]) -> None:
    assert moved(settings, {"held_out": {"probe_blocks": 8}}) == {"balance/mixture"}


def test_studies_with_the_same_data_share_it(settings: dict[str, Any]) -> None:
    assert moved(settings, {"study": "other", "seeds": [5], "ablations": {"dense": {"about": "another"}}}) == set()


def test_a_published_tokenizer_is_fetched_like_a_source(settings: dict[str, Any]) -> None:
    one = make(settings, {"tokenizer": {"kind": "gpt2"}})
    assert "tokenizer" in one.sources
    assert one.inputs("fit", "tokenizer")["fetch"] == [str(one.folder("fetch", "tokenizer") / "0-of-1" / "archive")]
    assert make(settings).inputs("fit", "tokenizer")["fetch"] == []


def test_one_name_for_two_sources_is_refused(settings: dict[str, Any]) -> None:
    wikipedia = settings["domains"]["prose"]["sources"]["wikipedia"]
    with pytest.raises(ValueError, match="two different sources are called sphinx"):
        make(settings, {"domains": {"prose": {"sources": {"sphinx": wikipedia}}}}).check_sources()


def test_only_the_runs_of_an_edited_ablation_get_another_spec(settings: dict[str, Any]) -> None:
    change = {"ablations": {"frozen": {"change": {"optimizer": {"lr": 0.5}}}}}
    one, other = make(settings), make(settings, change)
    before, after = one.specs(), other.specs()
    # a file is named by its content, so another spec is another file
    changed = [spec for path, spec in after.items() if path not in before]
    assert {spec.ablation for spec in changed if isinstance(spec, RunSpec)} == {"frozen"}
    assert {spec.run.ablation for spec in changed if isinstance(spec, InterveneSpec)} == {"frozen"}
    assert {type(spec) for spec in changed} <= {RunSpec, InterveneSpec, ReportSpec}
    assert all(before[path] == after[path] for path in before.keys() & after.keys())
    assert one.spec_file(one.run("frozen", 0)) != other.spec_file(other.run("frozen", 0))


def test_specs_are_rewritten_only_where_they_differ(settings: dict[str, Any], tmp_path: pathlib.Path) -> None:
    study = parse_study(settings, "config.yaml")
    one = StudyGraph(study, tmp_path)
    one.write_specs()
    files = sorted(tmp_path.rglob("*.json"))
    assert set(files) == set(one.specs() | one.handmade_specs())
    stamps = [file.stat().st_mtime_ns for file in files]
    files[3].write_text("{}")
    one.write_specs()
    assert [file.stat().st_mtime_ns for file in files[:3]] == stamps[:3]
    assert files[3].read_text() == canonical_json((one.specs() | one.handmade_specs())[files[3]])


def test_a_run_that_the_study_does_not_have_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="study three_selectors has no run auxiliary, seed 99"):
        make(settings).run("auxiliary", 99)


def test_a_study_without_tasks_has_no_job_of_them(settings: dict[str, Any]) -> None:
    one = make(settings)
    assert one.tasks == () and not [spec for spec in one.specs().values() if isinstance(spec, EvaluateTaskSpec)]
    assert not {"task_lengths", "task_heat"} & set(one.figures())


def test_each_run_has_a_job_for_each_task_of_the_arms_that_are_evaluated(settings: dict[str, Any]) -> None:
    tasks = {"short": {"kind": "copying", "lengths": [8]}, "long": {"kind": "copying", "lengths": [16]}}
    one = make(settings, {"evaluation": {"tasks": tasks, "ablations": ["frozen"]}})
    specs = [spec for spec in one.specs().values() if isinstance(spec, EvaluateTaskSpec)]
    assert {(spec.run.ablation, spec.run.seed, spec.task) for spec in specs} == {
        ("frozen", seed, task) for seed in one.study.seeds for task in tasks
    }
    assert one.compare_tasks_spec().arms == ("frozen",)
    assert {"task_lengths", "task_heat"} <= set(one.figures())
    # tasks change the spec of no other job than the report
    before, after = make(settings).specs(), one.specs()
    changed = {type(spec) for file, spec in after.items() if file not in before}
    assert changed == {EvaluateTaskSpec, CompareTasksSpec, ReportSpec}


def test_what_a_tasks_own_files_hold_decides_and_one_that_is_missing_is_no_error(
    settings: dict[str, Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> str:
        return make(settings, {"evaluation": {"tasks": {"own": {"kind": "copying"}}}}).task_content("own")

    assert content() == ""
    file = tmp_path / "questions.jsonl"
    monkeypatch.setattr(options_of("evaluation/task", "copying"), "files", lambda self: (str(file),))
    missing = content()
    file.write_text("one")
    one = content()
    file.write_text("two")
    assert len({"", missing, one, content()}) == 4
    file.write_text("one")
    assert content() == one
    file.unlink()
    assert content() == missing


def test_a_hypothesis_may_be_about_the_numbers_of_tables_runs() -> None:
    numbers = {
        name for name, kind in tables.COLUMNS["runs"].items() if kind.startswith(("float", "Float", "int", "Int"))
    }
    assert set(NAMES) <= numbers
    assert set(load.OF_SHARES) - set(NAMES) == {"cv_squared"}


def test_the_page_of_the_data_reads_the_card_alone(settings: dict[str, Any]) -> None:
    graph = make(settings)
    assert graph.figures("data")
    assert {graph.read_by(figure) for figure in graph.figures("data")} == {"card"}
    assert {graph.read_by(figure) for figure in graph.figures()} == {"tables", "interventions", "types"}


def test_a_study_without_code_has_no_figure_of_lexical_types(settings: dict[str, Any]) -> None:
    assert "token_types" in make(settings).figures()
    assert "token_types" not in make(settings, {"domains": {"code": {"language": None}}}).figures()


def test_arms_whose_routers_cannot_learn_are_known(settings: dict[str, Any]) -> None:
    graph = make(settings)
    assert {arm.name for arm in graph.arms if arm.fixed} == {"frozen"}
    assert graph.draw_spec("load").fixed == ("frozen",)


def test_a_domain_may_give_more_of_its_text_to_the_probe(settings: dict[str, Any]) -> None:
    graph = make(settings, {"domains": {"math": {"probe_share": 0.3}}})
    shares = {name: graph.stages["assign_splits"].spec(graph, name).split for name in graph.study.domains}
    assert shares["code"] == graph.study.split
    assert shares["math"].model_dump() == {**graph.study.split.model_dump(), "probe": 0.3}


def test_a_study_may_ask_for_no_interventions(settings: dict[str, Any]) -> None:
    asked, none = make(settings), make(settings, {"analysis": {"interventions": {"blocks": 0}}})
    assert {"use"} == set(asked.figures()) - set(none.figures())
    assert asked.intervene_spec("auxiliary", 0).blocks == 8
    assert none.compare_spec().margin == none.report_spec().margin == 0
    names = [{type(spec).__name__ for spec in graph.specs().values()} for graph in (asked, none)]
    assert names[0] - names[1] == {"InterveneSpec"}
    few = make(settings, {"analysis": {"interventions": {"blocks": 3, "margin": 0.2}}})
    assert few.intervene_spec("auxiliary", 1).blocks == 3
    assert few.compare_spec().margin == few.draw_spec("use").margin == 0.2
