"""Test that what a run starts from is an input of it, and nothing else is."""

import pathlib
from typing import Any

import pytest

from speciate.config.extends import merge, read_yaml
from speciate.config.study import Study, parse_study
from speciate.graph.study_graph import StudyGraph

CONFIG = pathlib.Path(__file__).parents[2] / "studies/three_selectors.yaml"
EXPERTS = {"model": {"block": {"ffn": {"hidden": 256}}}}


def study(**starts: Any) -> Study:
    """Make the study of three selectors with ablations that start in this way."""
    arms = {name: {"about": name, "change": {**EXPERTS, "start": start}} for name, start in starts.items()}
    return parse_study(merge(read_yaml(CONFIG), {"ablations": arms}), "study")


def test_a_run_depends_on_its_parent_of_the_same_seed() -> None:
    origin = {"kind": "run", "ablation": "dense"}
    made = study(grown={"kind": "upcycle", "origin": origin}, next={"kind": "dense", "origin": origin})
    plan = StudyGraph(made, pathlib.Path("results"))
    for seed in made.seeds:
        path = f"results/three_selectors/runs/dense/seed{seed}/model.safetensors"
        assert plan.start("grown", seed) == path == plan.start("next", seed)
        assert plan.start_inputs("grown", seed) == [path]
        assert plan.start("auxiliary", seed) is None
        assert plan.start_inputs("auxiliary", seed) == []
    assert plan.start_sources == {}


def test_an_archive_is_fetched_once_for_all_that_start_from_it() -> None:
    origin = {"kind": "archive"}
    made = study(one={"kind": "upcycle", "origin": origin}, two={"kind": "upcycle", "origin": origin, "drop": 0.5})
    plan = StudyGraph(made, pathlib.Path("results"))
    assert list(plan.start_sources) == ["start"]
    archive = plan.start("one", 0)
    assert archive == plan.start("two", 1)
    assert plan.start_inputs("one", 0) == [archive]
    assert archive is not None
    spec = plan.data_specs()[pathlib.Path(archive).parents[1] / "spec.json"]
    assert spec == plan.spec("fetch", "start")
    assert (spec.name, spec.source.kind) == ("start", "gguf")
    assert plan.folders().starts == {"start": str(pathlib.Path(archive).relative_to("results"))}
    other = StudyGraph(study(), pathlib.Path("results"))
    assert other.folder("balance", "mixture") == plan.folder("balance", "mixture")  # a start is not part of the data


def test_a_folder_of_the_users_is_its_files(tmp_path: pathlib.Path) -> None:
    made = study(mine={"kind": "dense", "origin": {"kind": "folder", "path": str(tmp_path)}})
    plan = StudyGraph(made, pathlib.Path("results"))
    with pytest.raises(ValueError, match=r"ablations\.mine\.start\.origin\.path: .* holds no \.json, \.safetensors"):
        plan.local_start_files("mine")
    for name in ("config.json", "model.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    assert plan.start("mine", 0) == str(tmp_path)
    assert plan.start_inputs("mine", 0) == []
    assert plan.local_start_files("mine") == [str(tmp_path / "config.json"), str(tmp_path / "model.safetensors")]
    before = plan.start_content("mine")
    (tmp_path / "model.safetensors").write_text("other weights")
    assert StudyGraph(made, pathlib.Path("results")).start_content("mine") != before
    assert plan.start_content("dense") == ""


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"one": "gone"}, "ablations.one.start.origin.ablation: no ablation is called gone"),
    "itself": ({"one": "one"}, "ablations.one.start.origin.ablation: leads back to itself: one from one"),
    "circle": ({"one": "two", "two": "one"}, "leads back to itself: one from two from one"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_start_that_leads_nowhere_is_refused(case: str) -> None:
    parents, message = BAD[case]
    starts = {
        name: {"kind": "dense", "origin": {"kind": "run", "ablation": ablation}} for name, ablation in parents.items()
    }
    with pytest.raises(ValueError, match=message):
        study(**starts)


def test_a_start_of_another_shape_is_refused_before_anything_runs() -> None:
    origin = {"kind": "run", "ablation": "dense"}
    change = {"model": {"position": "learned"}, "start": {"kind": "upcycle", "origin": origin}}
    arms = {"grown": {"about": "x", "change": change}}
    message = "grown cannot start from dense: model.position is 'learned' here, 'rotary' there"
    with pytest.raises(ValueError, match=message):
        parse_study(merge(read_yaml(CONFIG), {"ablations": arms}), "study")


def test_a_kind_of_start_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="available: dense, oracle_model, scratch, upcycle"):
        study(one="warm")
    with pytest.raises(ValueError, match=r"origin.*available: archive, folder, hub, run"):
        study(one={"kind": "dense", "origin": "disk"})
    with pytest.raises(ValueError, match=r"ablations\.one\.start\.origin: is missing"):
        study(one="upcycle")
