"""Test that planning costs what the study's size says: counts of what is parsed, named and listed, never times."""

import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.workflow.conftest import ROOT, Workspace

from speciate.config.extends import read_yaml
from speciate.config.pretrained.fill import fill_from_checkpoints
from speciate.config.run import RunSpec, canonical_json
from speciate.config.study import Study, parse_study
from speciate.graph import frozen
from speciate.graph.study_graph import StudyGraph

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


def many(num_ablations: int, num_seeds: int) -> dict[str, Any]:
    """Return the settings of a study of `num_ablations` times `num_seeds` runs, whose ablations have another `lr`."""
    settings = read_yaml(ROOT / "studies/smoke.yaml")
    dense = settings["ablations"]["dense"]
    settings["ablations"] = {
        f"arm_{index}": {
            "about": f"arm {index}",
            "change": {**dense["change"], "optimizer": {"lr": 0.001 * (index + 1)}},
        }
        for index in range(num_ablations)
    }
    settings |= {"study": "many", "seeds": list(range(num_seeds)), "hypotheses": {}}
    settings["analysis"] |= {"reference": "arm_0", "controls": []}
    return settings


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Provide the list of the ablations that were parsed, one for each time."""
    names: list[str] = []
    parse: Callable[[Study, str], RunSpec] = Study._parse_run

    def count(study: Study, ablation: str) -> RunSpec:
        names.append(ablation)
        return parse(study, ablation)

    monkeypatch.setattr(Study, "_parse_run", count)
    return names


def test_an_ablation_is_parsed_once_whatever_the_number_of_its_seeds(parsed: list[str]) -> None:
    graph = StudyGraph(parse_study(many(5, 40), "many"), pathlib.Path("results"))
    assert len(graph.study.runs()) == 200
    assert len(graph.specs()) > 400  # two for each run
    graph.figures()
    assert sorted(parsed) == [f"arm_{index}" for index in range(5)]


def test_a_seed_changes_the_seed_alone() -> None:
    """Compare with a validation of the whole run, seed and all."""
    for file in STUDIES:
        study = parse_study(fill_from_checkpoints(read_yaml(file), str(file)).settings, str(file))
        for run in study.runs():
            whole = RunSpec.model_validate({**run.model_dump(mode="json"), "seed": run.seed})
            assert canonical_json(run) == canonical_json(whole)
            assert run == whole
        assert [(run.ablation, run.seed) for run in study.runs()] == [
            (ablation, seed) for ablation in study.ablations for seed in study.seeds
        ]


def test_a_seed_that_no_run_could_have_is_refused_whichever_it_is() -> None:
    settings = many(1, 1)
    with pytest.raises(ValueError, match=r"seeds\.1: .*greater than or equal to 0, not -1"):
        parse_study(settings | {"seeds": [0, -1]}, "many")


def test_a_job_of_a_cluster_parses_its_own_ablation(parsed: list[str]) -> None:
    graph = StudyGraph(parse_study(many(50, 2), "many", checked=True), pathlib.Path("results"))
    graph.folder("balance", "mixture"), graph.folder("fit", "tokenizer")
    graph.spec_file(graph.run("arm_7", 1)), graph.start_inputs("arm_7", 1), graph.start_content("arm_7")
    graph.spec_file(graph.measure_spec("arm_7", 1))
    assert parsed == ["arm_7"]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_what_was_checked_before_gives_the_same_specs(file: pathlib.Path) -> None:
    settings = fill_from_checkpoints(read_yaml(file), str(file)).settings
    first, second = (
        StudyGraph(parse_study(settings, str(file), checked=checked), pathlib.Path("results"))
        for checked in (False, True)
    )
    written = [
        {str(path): canonical_json(spec) for path, spec in (graph.specs() | graph.handmade_specs()).items()}
        for graph in (first, second)
    ]
    assert written[0] == written[1]


COUNTING = """
import atexit, json
from speciate.config.study import Study
PARSED, PARSE = [], Study._parse_run
def counted(study, ablation):
    PARSED.append(ablation)
    return PARSE(study, ablation)
Study._parse_run = counted
DIGESTED, DIGEST = collections.Counter(), digest
def digest(stage, *specs):
    DIGESTED[stage] += 1
    return DIGEST(stage, *specs)
from snakemake import jobs as of_jobs
COPIED, COPY = [], of_jobs.format
def copied(text, **names):
    COPIED.append(text)
    return COPY(text, **names)
of_jobs.format = copied
def write_counts():
    copies = list(COPIED)
    jobs = list(workflow.dag.jobs)
    rules = {job.rule.name for job in jobs}
    inputs = {rule: max(len(job.input) for job in jobs if job.rule.name == rule) for rule in rules}
    commands = {rule: max(len(job.shellcmd or "") for job in jobs if job.rule.name == rule) for rule in rules}
    counts = {"parsed": PARSED, "digested": DIGESTED, "copied": copies, "inputs": inputs, "commands": commands}
    pathlib.Path("counts.json").write_text(json.dumps(counts))
atexit.register(write_counts)
"""
"""What a Snakefile runs to write what its Snakemake parsed, and what its jobs name."""
HERE = "# Another Snakefile may import"
PER_RUN = ("train", "evaluate", "measure")


class Planner(Workspace):
    """A copy of the repository that counts what planning does."""

    def __init__(self, folder: pathlib.Path, settings: dict[str, Any]) -> None:
        super().__init__(folder)
        self.settings = settings
        self.edit("workflow/Snakefile", HERE, f"{COUNTING}\n{HERE}")
        (folder / "many.yaml").write_text(json.dumps(settings))

    def plan(self, *arguments: str) -> dict[str, Any]:
        """Plan, and return the counts and what Snakemake said."""
        done = self.snakemake("--dry-run", *arguments)
        assert done.returncode == 0, done.stdout
        return {**json.loads((self.folder / "counts.json").read_text()), "output": done.stdout}

    def plan_study(self) -> dict[str, Any]:
        """Plan as a user does."""
        return self.plan("--cores", "1", "--configfile", "many.yaml", "--quiet", "reason")

    def plan_step(self, target: str) -> dict[str, Any]:
        """Plan as a job step of a cluster does after the study has begun; by then the study file is gone."""
        graph = StudyGraph(parse_study(self.settings, "many"), self.folder / "results")
        mixture = graph.folder("balance", "mixture") / "mixture.json"
        mixture.parent.mkdir(parents=True)
        mixture.touch()
        tree = frozen.read_tree(self.folder, self.settings).write(self.folder / "results/source")
        (self.folder / "many.yaml").unlink()
        step = ["--target-jobs", target, "--allowed-rules", target.partition(":")[0], "--cores", "1", "--force"]
        step += ["--nolock", "--no-hooks", "--ignore-incomplete", "--mode", "remote"]
        return self.plan(*step, "--config", f"frozen_tree={tree.relative_to(self.folder)}")


def test_snakemake_plans_from_one_reading_of_each_ablation(tmp_path: pathlib.Path) -> None:
    planner = Planner(tmp_path / "clone", many(6, 20))
    counts = planner.plan_study()
    assert re.search(r"^train +120$", counts["output"], re.MULTILINE)
    assert sorted(counts["parsed"]) == sorted(f"arm_{index}" for index in range(6))
    # so is the code that it runs found; other rules have one job, or one for each figure or shard
    assert {stage: counts["digested"][stage] for stage in ("train", "evaluate", "intervene")} == {
        "train": 6,
        "evaluate": 6,
        "intervene": 6,
    }
    # no text is made from a copy of all names that rules know
    assert counts["copied"] == []
    # a dry run writes no spec
    assert not (planner.folder / "results").exists()


def test_what_a_job_names_grows_neither_with_the_runs_nor_with_the_shards(tmp_path: pathlib.Path) -> None:
    """Snakemake takes time for each file that a job names, and a command is one argument of at most 128 KiB."""
    sharded = many(4, 15)
    for domain in sharded["domains"].values():
        domain["shards"] = 3
    small = Planner(tmp_path / "small", many(2, 2)).plan_study()
    large = Planner(tmp_path / "large", sharded).plan_study()
    assert {rule: large["inputs"][rule] for rule in PER_RUN} == {rule: small["inputs"][rule] for rule in PER_RUN}
    assert max(large["inputs"][rule] for rule in PER_RUN) <= 7
    # of each run one table of measures and the table of interventions; and one record
    assert large["inputs"]["compare"] == 120 and small["inputs"]["compare"] == 8
    assert large["inputs"]["manifest"] - small["inputs"]["manifest"] == 56
    for rule in ("compare", "manifest", "report"):
        assert large["commands"][rule] - small["commands"][rule] < 100, rule


def test_a_job_step_of_a_cluster_reads_its_own_ablation(tmp_path: pathlib.Path) -> None:
    counts = Planner(tmp_path / "clone", many(6, 20)).plan_step("train:ablation=arm_4,seed=13")
    assert "train arm_4, seed 13" in counts["output"]
    assert counts["parsed"] == ["arm_4"]
