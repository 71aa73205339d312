"""Test that the records beside the results decide what runs again: without Snakemake's own, and whatever the dates.

The study is a copy of the finished smoke study, as `cp -r` makes it: without dates, and without `.snakemake`.
"""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml
from tests.workflow.conftest import ROOT, Workspace, jobs_in
from tests.workflow.test_staleness import AFTER_MEASURES, GRAPH, NUM_RUNS, STUDY, digests_of_jobs

from speciate.graph.provenance import spec_digest
from speciate.graph.records import Record, entry_of, read_records

BUILT = pathlib.Path(".envs/study/build.json")
IMAGES = "containers/images.lock.yaml"


@pytest.fixture(scope="module")
def copy(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    copied = Workspace(tmp_path_factory.mktemp("copied") / "clone")
    shutil.copytree(finished.folder / "results", copied.folder / "results", copy_function=shutil.copyfile)
    draw = random.Random(0)
    for file in (copied.folder / "results").rglob("*"):
        date = 1_700_000_000 + draw.randrange(10_000_000)
        os.utime(file, (date, date))
    # the environment's record is its own, so that a test can change it
    (copied.folder / ".envs").unlink()
    (copied.folder / BUILT).parent.mkdir(parents=True)
    shutil.copyfile(ROOT / BUILT, copied.folder / BUILT)
    return copied


@pytest.fixture
def copied(copy: Workspace) -> Iterator[Workspace]:
    """Provide the copy; afterwards Snakemake's records are gone, and each test puts back what it edits."""
    yield copy
    shutil.rmtree(copy.folder / ".snakemake", ignore_errors=True)


def plan(workspace: Workspace, *arguments: str) -> str:
    """Return what a dry run says, without its table of reasons."""
    return workspace.smoke("--dry-run", *arguments)


def record_of(results: pathlib.Path, stage: str, *outputs: str) -> Record:
    entry = entry_of(stage, [results / pathlib.Path(file).relative_to("results") for file in outputs], results)
    return read_records(entry.file)[entry.stage]


def test_every_job_recorded_the_code_and_the_packages_that_it_used(finished: Workspace) -> None:
    environments = set()
    for file, (stage, code) in digests_of_jobs().items():
        first = pathlib.Path(file)
        # one job for all tables, or for a page of each
        others = [f"{first.parent}/another.csv"] if stage in ("compare", "compare_tasks", "card", "report") else []
        record = record_of(finished.folder / "results", stage, file, *others)
        assert record.code == code, file
        assert record.outputs[os.path.relpath(first, record_home(first))][0] == (finished.folder / first).stat().st_size
        environments.add(record.environment)
        assert {"processor", "instructions", "threads"} <= set(record.machine)
    assert len(environments) == 1 and "" not in environments


def record_home(file: pathlib.Path) -> pathlib.Path:
    """Return the folder to which a record names a file."""
    alone = file.parts[1] == "data" or file.parts[2] in ("runs", "measures", "interventions", "tasks")
    return file.parent if alone else pathlib.Path(*file.parts[:2])


def test_a_run_recorded_its_spec_and_the_data_that_it_read(finished: Workspace) -> None:
    results = finished.folder / "results"
    for run in STUDY.runs():
        folder = GRAPH.run_folder(run.ablation, run.seed)
        record = record_of(results, "train", f"{folder}/model.safetensors")
        assert record.spec == spec_digest(run)
        mixture = record_of(results, "balance", f"{GRAPH.folder('balance', 'mixture')}/mixture.json")
        key = f"data/balance/{GRAPH.folder('balance', 'mixture').name}/made_by.json:balance"
        assert record.inputs[key] == mixture.made
        measured = record_of(results, "measure", f"{GRAPH.measure_folder(run.ablation, run.seed)}/runs.parquet")
        assert measured.inputs[f"smoke/runs/{run.ablation}/seed{run.seed}/made_by.json:train"] == record.made


def test_results_copied_without_dates_and_without_snakemakes_records_stay(copied: Workspace) -> None:
    assert copied.stale() == {}


def test_edited_code_is_noticed_without_snakemakes_records(copied: Workspace) -> None:
    files = [copied.folder / "src/speciate" / name for name in ("figures/data_drops.py", "analysis/load.py")]
    kept = {file: file.read_text() for file in files}
    for file, text in kept.items():
        file.write_text(text + "\nEDITED = 1\n")
    said = plan(copied)
    for file, text in kept.items():
        file.write_text(text)
    assert re.search(r"draw \(figure data_drops\) runs again: made with other code \(\w{10}, not \w{10}\)", said)
    assert re.search(r"measure \(ablation \w+, seed 0\) runs again: made with other code", said)
    stale = jobs_in(said)
    assert stale["measure"] == NUM_RUNS and "train" not in stale


def test_a_file_that_was_edited_by_hand_is_made_again(copied: Workspace) -> None:
    """Edit a file so that neither its size nor its date shows it, and remove the record of another."""
    blocks = copied.folder / GRAPH.folder("pack", "code") / "train.blocks.npy"
    stat, content = blocks.stat(), blocks.read_bytes()
    blocks.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(blocks, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    record = copied.folder / GRAPH.folder("sketch", "prose") / "0-of-1" / "made_by.json"
    kept = record.read_bytes()
    record.unlink()
    said = plan(copied)
    record.write_bytes(kept)
    blocks.write_bytes(content)
    assert f"pack (name code) runs again: {blocks.relative_to(copied.folder)} is no longer what pack wrote" in said
    assert "sketch (name prose, shard 0-of-1) runs again: nothing says what made its files" in said
    stale = jobs_in(said)
    assert stale["pack"] == stale["balance"] == stale["sketch"] == 1
    assert stale["train"] == NUM_RUNS
    assert "encode" not in stale


def test_another_lock_makes_all_again_and_is_named(copied: Workspace) -> None:
    built = json.loads((copied.folder / BUILT).read_text())
    (copied.folder / BUILT).write_text(json.dumps({**built, "requirements": "another", "locks": "another"}))
    said = plan(copied)
    (copied.folder / BUILT).write_text(json.dumps(built))
    changed = r"made with packages of another lock \(\w{10}, not \w{10}\)"
    assert re.search(rf"fetch \(name networkx, shard 0-of-1\) runs again: {changed}", said)
    assert jobs_in(said)["train"] == NUM_RUNS


@pytest.mark.parametrize("same", [True, False])
def test_a_container_of_the_same_lock_makes_nothing_again(
    copied: Workspace, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    apptainer = tmp_path / "apptainer"
    apptainer.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    apptainer.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    built, lock = json.loads((copied.folder / BUILT).read_text()), copied.folder / IMAGES
    kept = lock.read_text()
    pins = yaml.safe_load(kept)
    locked = built.get("requirements") or built["locks"]
    pins["study"] |= {"requirements": locked if same else "another", "torch": built["torch"]["file"]}
    lock.write_text(yaml.safe_dump(pins))
    image = copied.folder / pins["study"]["file"]
    image.parent.mkdir(exist_ok=True)
    image.touch()
    said = plan(copied, "--workflow-profile", "profiles/container")
    lock.write_text(kept)
    assert ("Nothing to be done" in said) == same
    assert ("made with packages of another lock" in said) == (not same)


def test_the_layout_of_a_command_changes_nothing_and_an_option_does(copied: Workspace) -> None:
    rules = copied.folder / "workflow" / "rules"
    kept = {file: file.read_text() for file in rules.glob("*.smk")}
    for file, text in kept.items():
        file.write_text(text.replace("python -m speciate ", "python  -m  speciate ").replace(" --spec {", "  --spec {"))
    assert all(file.read_text() != kept[file] for file in kept if file.name != "paths.smk")
    assert copied.stale() == {}
    for file, text in kept.items():
        file.write_text(
            text.replace('--shard {wildcards.shard}"\n        " --output', '--shard 1-of-2"\n        " --output')
        )
    said = plan(copied)
    for file, text in kept.items():
        file.write_text(text)
    assert "fetch (name networkx, shard 0-of-1) runs again: made with other options (none, not --shard 1-of-2)" in said


def test_what_a_person_made_by_hand_is_judged_by_what_it_used(copied: Workspace, tmp_path: pathlib.Path) -> None:
    """Measure a run by hand with another spec, and then as the study asks."""
    run = STUDY.runs()[0]
    folder = GRAPH.measure_folder(run.ablation, run.seed)
    spec = GRAPH.spec_file(GRAPH.measure_spec(run.ablation, run.seed))
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**json.loads((copied.folder / spec).read_text()), "permutations": 3}))

    def measure(file: pathlib.Path) -> None:
        command = [sys.executable, "-m", "speciate", "measure", "--spec", str(file), "--output-folder", str(folder)]
        command += ["--run-folder", str(GRAPH.run_folder(run.ablation, run.seed))]
        command += ["--mixture-folder", str(GRAPH.folder("balance", "mixture"))]
        # the workflow's jobs do not see which kernels this shell prefers
        shell = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "ATEN_"))}
        environment = {**shell, "PYTHONPATH": str(copied.folder / "src")}
        subprocess.run(command, cwd=copied.folder, env=environment, check=True, capture_output=True)

    measure(other)
    assert copied.stale() == {"measure": 1, **AFTER_MEASURES}
    measure(spec)
    # the bytes are those of the workflow, and so is all that was made of them
    assert copied.stale() == {}
