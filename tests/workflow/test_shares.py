"""Test which jobs share a submission to a cluster, and what a share asks for."""

import itertools
import pathlib
from types import SimpleNamespace
from typing import Any

import pytest
from shares import ALL, MOST_RUNS, Shares, merged, packed
from tests.workflow.conftest import ROOT

from speciate.config.extends import extend, read_yaml
from speciate.config.pretrained.fill import fill_from_checkpoints
from speciate.config.study import parse_study
from speciate.graph.expected_time import evaluation_seconds, training_seconds
from speciate.graph.study_graph import StudyGraph


def read_settings(file: pathlib.Path) -> dict[str, Any]:
    return fill_from_checkpoints(extend(read_yaml(file), file.parent), str(file)).settings


def graph_of(file: str, **changes: Any) -> StudyGraph:
    settings = read_settings(ROOT / file) | changes
    return StudyGraph(parse_study(settings, file), ROOT / "results")


@pytest.fixture(scope="module")
def smoke() -> StudyGraph:
    return graph_of("studies/smoke.yaml")


def workflow_of(minutes: int, fetch_here: int = 0, inside: str | None = None) -> Any:
    resources = {
        name: SimpleNamespace(value=value)
        for name, value in (("share_minutes", minutes), ("fetch_on_login_node", fetch_here))
    }
    settings = SimpleNamespace(group_components={}, local_groupid=inside or "local")
    return SimpleNamespace(
        global_resources=resources, group_settings=settings, parent_groupids={}, is_main_process=inside is None
    )


def seconds(graph: StudyGraph, run: tuple[str, int]) -> float:
    spec = graph.run(*run)
    return training_seconds(spec, graph.study.block_length) + evaluation_seconds(spec, graph.study)


def wildcards(**values: str) -> Any:
    return SimpleNamespace(**values)


def test_runs_fill_shares_by_their_expected_time(smoke: StudyGraph) -> None:
    every = set(itertools.product(smoke.study.ablations, smoke.study.seeds))
    shares = packed(smoke, 1, True)
    assert set(shares) == every and len(set(shares.values())) < len(every) / 2
    for share in set(shares.values()):
        members = [run for run in shares if shares[run] == share]
        assert sum(seconds(smoke, run) for run in members) <= 60
    # another run would not fit into any share but the last
    sums = [
        sum(seconds(smoke, run) for run in shares if shares[run] == share) for share in sorted(set(shares.values()))
    ]
    assert all(total + 16 > 60 for total in sums[:-1])
    assert len(set(packed(smoke, 10, True).values())) == 1
    assert len(packed(smoke, 10**6, True)) == len(every) <= MOST_RUNS


def test_a_long_run_has_its_own_job_and_its_evaluations_share(smoke: StudyGraph) -> None:
    base = read_settings(ROOT / "studies/smoke.yaml")["base"]
    base["training"]["num_steps"] = 10**8
    long = graph_of("studies/smoke.yaml", base=base)
    assert packed(long, 10, True) == {}
    shares = Shares(workflow_of(10), long)
    run = wildcards(ablation="dense", seed="0")
    assert shares.run(run) is None
    assert shares.evaluation(run) == shares.evaluation(wildcards(ablation="gsa", seed="1")) == "evaluations0_0"
    assert Shares(workflow_of(10), smoke).evaluation(run) == Shares(workflow_of(10), smoke).run(run) == "runs0_0"


def test_a_run_never_shares_with_the_run_that_it_starts_from() -> None:
    study = next(
        file
        for file in sorted((ROOT / "studies").glob("*.yaml"))
        if any(run.parent for run in parse_study(read_settings(file), str(file)).runs())
    )
    graph = graph_of(str(study.relative_to(ROOT)))
    shares = packed(graph, 10**7, True)
    order = {share: number for number, share in enumerate(sorted(set(shares.values())))}
    checked = 0
    for (ablation, seed), share in shares.items():
        parent = graph.run(ablation, seed).parent
        if parent is not None:
            checked += 1
            # shares wait in one direction only
            assert order[shares[parent, seed]] < order[share]
    assert checked


def test_small_stages_share_unless_the_data_are_sharded(smoke: StudyGraph) -> None:
    shares, here = Shares(workflow_of(10), smoke), Shares(workflow_of(10, fetch_here=1), smoke)
    assert {shares.data(stage)(wildcards()) for stage in smoke.stages} == {"data"} == {shares.card(wildcards())}
    assert here.data("fetch")(wildcards()) is None and here.data("clean")(wildcards()) == "data"
    on_data, on_runs = (wildcards(figure=smoke.figures(page)[0]) for page in ("data", "report"))
    assert (shares.figure(on_data), shares.figure(on_runs), shares.tables(wildcards())) == ("data", "report", "report")
    domains = read_settings(ROOT / "studies/smoke.yaml")["domains"]
    domains["code"]["shards"] = 4
    sharded = Shares(workflow_of(10), graph_of("studies/smoke.yaml", domains=domains))
    named = {stage: sharded.data(stage)(wildcards()) for stage in smoke.stages}
    assert named["sort"] == named["sign"] == "sorted" and named["write_splits"] == named["sketch"] == "split"
    # these read what other shards made of what their share would make
    assert {named[stage] for stage in ("fetch", "clean", "bucket", "fit", "encode", "pack", "balance")} == {None}


def test_without_minutes_nothing_is_shared(smoke: StudyGraph) -> None:
    shares = Shares(workflow_of(0), smoke)
    run = wildcards(ablation="dense", seed="0")
    assert shares.run(run) is shares.evaluation(run) is shares.tables(run) is shares.data("fit")(run) is None


def test_inside_a_job_all_that_it_was_given_is_one_share(smoke: StudyGraph) -> None:
    workflow = workflow_of(0, inside="an-id")
    shares = Shares(workflow, smoke)
    assert shares.tables(wildcards()) == shares.data("fetch")(wildcards()) == "an-id"
    assert workflow.parent_groupids == {"an-id": ALL} and workflow.group_settings.group_components[ALL] > 1000


def test_a_share_asks_for_its_largest_member() -> None:
    train = {"mem_mb": 3000, "mem": "3 GB", "runtime": 120, "_cores": 4, "gpu": 1, "slurm_partition": "main"}
    measure = {"mem_mb": 2000, "mem": "2 GB", "runtime": 30, "_cores": 1, "slurm_partition": "main"}
    asked = merged([train, measure, train], 10)
    assert asked == {**train, "runtime": 130, "_nodes": 1}
    assert merged([train] * 3, 10, longest=125)["runtime"] == 125


def test_expected_times_grow_with_steps_and_shrink_with_threads_and_gpus(smoke: StudyGraph) -> None:
    run = smoke.run("dense", 0)
    base = training_seconds(run, 64)

    def changed(**changes: Any) -> float:
        return training_seconds(run.model_copy(update={"training": run.training.model_copy(update=changes)}), 64)

    start = training_seconds(run, 0)
    assert changed(num_steps=2000) - start == pytest.approx(100 * (base - start))
    assert changed(threads=4) - start == pytest.approx((base - start) / 4)
    assert changed(device="cuda") < base
