"""Test the records that stages write: what they hold, where they are, and what they refuse."""

import hashlib
import json
import pathlib
import sys

import pytest

from speciate.cli import verb_files, verb_parser
from speciate.config import run as config_run
from speciate.graph import recording
from speciate.graph.environment import environment_name, own_environment
from speciate.graph.provenance import digest, spec_digest
from speciate.graph.records import Entry, Record, Records, entry_of, read_records, results_of
from speciate.io import atomic_write
from speciate.stages.sort import Spec


@pytest.fixture
def results(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Provide a folder of results as a start of the workflow leaves it."""
    monkeypatch.chdir(tmp_path)
    for name in ("specs", "source"):
        (tmp_path / "results" / name).mkdir(parents=True)
    return tmp_path / "results"


def write(file: str, text: str) -> None:
    with atomic_write(pathlib.Path(file)) as temp_path:
        temp_path.write_text(text)


def run(verb: str, *words: str, writes: dict[str, str]) -> None:
    """Run a stage that only writes these files."""
    parser = verb_parser(verb_files()[verb])
    with recording.recording(verb, parser, parser.parse_args(words)):
        for file, text in writes.items():
            write(file, text)


def test_a_record_holds_what_was_used_and_written(results: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(results))  # as in an image, which has no record of a build
    monkeypatch.setenv("SPECIATE_ENVIRONMENT", "0123456789")
    monkeypatch.setenv("SPECIATE_CONTENT", "abc")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SPECIATE_ATTEMPT", "2")
    home = "results/data/fetch/tiny-0000000000/1-of-2"
    run(
        "fetch",
        "--spec",
        "none.json",
        "--output",
        f"{home}/archive",
        "--shard",
        "1-of-2",
        writes={f"{home}/archive": "x"},
    )
    record = read_records(pathlib.Path(home, "made_by.json"))["fetch"]
    assert record.outputs == {"archive": (1, hashlib.sha256(b"x").hexdigest())}
    assert (record.environment, record.content, record.settings) == ("0123456789", "abc", {"shard": "1-of-2"})
    assert record.code == digest("fetch")
    assert (record.machine["slurm_job"], record.machine["attempt"]) == ("77", "2")
    assert {"processor", "instructions", "threads"} <= set(record.machine)


def test_a_process_names_its_environment_by_what_was_installed(
    results: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECIATE_ENVIRONMENT", "as planned")
    monkeypatch.setattr(sys, "prefix", str(results))
    names = set()
    for requirements, torch in (("a", "t"), ("b", "t"), ("a", "u")):
        built = {"requirements": requirements, "locks": "x", "torch": {"file": torch}, "python": "3.12"}
        (results / "build.json").write_text(json.dumps(built))
        names.add(own_environment())
    assert len(names) == 3 and "as planned" not in names
    assert own_environment() == environment_name("a", "u")  # so is a pinned image's, of the same lock
    (results / "build.json").write_text("{")
    assert own_environment() == "as planned"


def test_a_record_names_the_spec_by_its_content(results: pathlib.Path) -> None:
    stage = pathlib.Path("results/data/sort/code-0000000000")
    spec = stage / "spec.json"
    out = f"{stage}/0-of-1"
    words = ("--spec", str(spec), "--cleaned", "results/data/clean", "--output-folder", out)
    write(str(spec), json.dumps({"domain": "code"}))
    parser = verb_parser(verb_files()["sort"])
    with recording.recording("sort", parser, parser.parse_args(words)):
        read = config_run.read_spec(Spec, spec)
        write(f"{out}/documents.parquet", "x")
    assert read_records(pathlib.Path(out, "made_by.json"))["sort"].spec == spec_digest(read)


def test_inputs_are_named_by_what_their_own_jobs_wrote(results: pathlib.Path) -> None:
    cleaned, out = "results/data/clean/code-0000000000", "results/data/sort/code-1111111111/0-of-2"
    for shard in ("0-of-2", "1-of-2"):
        folder = f"{cleaned}/{shard}"
        run(
            "clean", "--spec", "none.json", "--archive", "a=b", "--output-folder", folder, writes={f"{folder}/a": shard}
        )
    run("sort", "--spec", "none.json", "--cleaned", cleaned, "--output-folder", out, writes={f"{out}/documents": "x"})
    inputs = read_records(pathlib.Path(out, "made_by.json"))["sort"].inputs
    made = [read_records(pathlib.Path(cleaned, shard, "made_by.json"))["clean"].made for shard in ("0-of-2", "1-of-2")]
    assert inputs == {
        f"data/clean/code-0000000000/{shard}/made_by.json:clean": each
        for shard, each in zip(("0-of-2", "1-of-2"), made, strict=True)
    }
    assert made[0] != made[1]


def test_an_input_of_another_size_than_its_record_is_refused(
    results: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "PATIENCE", 1)
    cleaned = "results/data/clean/code-0000000000/0-of-1"
    run("clean", "--spec", "none.json", "--archive", "a=b", "--output-folder", cleaned, writes={f"{cleaned}/a": "four"})
    pathlib.Path(cleaned, "a").write_text("five!")
    with pytest.raises(ValueError, match="clean/code-0000000000/0-of-1/a: has 5 bytes, but `clean` wrote 4; remove it"):
        run("sort", "--spec", "none.json", "--cleaned", cleaned, "--output-folder", "results/data/sort/x", writes={})


def test_a_job_that_has_written_its_files_and_not_yet_its_record_is_waited_for(
    results: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = "results/tiny/tables"
    scores = ("--spec", "none.json", "--scores", "results/tiny/tasks", "--output-folder", tables)
    run("compare_tasks", *scores, writes={f"{tables}/tasks.csv": "old", f"{tables}/task_differences.csv": "old"})
    record = pathlib.Path("results/tiny/made_by/compare_tasks.json")
    before, texts = record.read_text(), {f"{tables}/tasks.csv": "newer", f"{tables}/task_differences.csv": "newer"}
    run("compare_tasks", *scores, writes=texts)
    after = record.read_text()
    record.write_text(before)
    monkeypatch.setattr(recording.time, "sleep", lambda seconds: record.write_text(after))
    options = ("--spec", "none.json", "--tables", tables, "--output-folder", "results/tiny/figures")
    run("draw", *options, writes={"results/tiny/figures/a.svg": "x"})
    drawn = read_records(pathlib.Path("results/tiny/made_by/draw.a.json"))["draw"]
    made = read_records(record)["compare_tasks"].made
    assert drawn.inputs == {"tiny/made_by/compare_tasks.json:compare_tasks": made}


def test_each_task_of_a_run_has_a_record_of_its_own(results: pathlib.Path) -> None:
    folder = "results/tiny/tasks/arm/seed0"
    options = ("--spec", "none.json", "--run-folder", "results/tiny/runs/arm/seed0", "--mixture-folder", "results/data")
    for task in ("copying", "needle"):
        run(
            "evaluate_tasks",
            *options,
            "--output",
            f"{folder}/{task}.parquet",
            writes={f"{folder}/{task}.parquet": task},
        )
    records = {file.stem: read_records(file)["evaluate_tasks"] for file in pathlib.Path(folder, "made_by").iterdir()}
    assert {task: set(record.outputs) for task, record in records.items()} == {
        "copying": {"copying.parquet"},
        "needle": {"needle.parquet"},
    }
    scores = ("--spec", "none.json", "--scores", "results/tiny/tasks", "--output-folder", "results/tiny/tables")
    written = {f"results/tiny/tables/{name}.csv": "x" for name in ("tasks", "task_differences")}
    run("compare_tasks", *scores, writes=written)
    compared = read_records(pathlib.Path("results/tiny/made_by/compare_tasks.json"))["compare_tasks"]
    key = "tiny/tasks/arm/seed0/made_by"
    assert compared.inputs == {f"{key}/{task}.json:evaluate_tasks": record.made for task, record in records.items()}


def test_a_record_does_not_depend_on_which_of_two_jobs_of_a_run_ends_first(results: pathlib.Path) -> None:
    folder = pathlib.Path("results/tiny/runs/arm/seed0")
    made = {stage: Record("", "", {f"{stage}.txt": (1, "0")}) for stage in ("train", "evaluate")}
    for stage, record in made.items():
        (folder / f"{stage}.txt").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{stage}.txt").write_text("x")
        recording.write(Entry(folder.absolute() / "made_by.json", stage), record)
    options = ("--spec", "none.json", "--mixture-folder", "results/data")
    key, tables = "tiny/runs/arm/seed0/made_by.json", "results/tiny/tables"
    swaps = (*options, "--runs", str(folder.parents[1]), "--output-folder", tables)
    run("swap", *swaps, writes={f"{tables}/swaps.csv": "x", f"{tables}/swaps.parquet": "x"})
    record = read_records(pathlib.Path("results/tiny/made_by/swap.swaps.json"))["swap"]
    assert record.inputs == {f"{key}:train": made["train"].made}
    output = "results/tiny/tasks/arm/seed0/copying.parquet"
    run("evaluate_tasks", *options, "--run-folder", str(folder), "--output", output, writes={output: "x"})
    record = read_records(pathlib.Path(output).parent / "made_by/copying.json")["evaluate_tasks"]
    assert record.inputs == {f"{key}:train": made["train"].made}
    # interventions follow the evaluation, of which they read the lifts
    output = "results/tiny/interventions/arm/seed0/interventions.parquet"
    run("intervene", *options, "--run-folder", str(folder), "--output", output, writes={output: "x"})
    record = read_records(pathlib.Path(output).parent / "made_by.json")["intervene"]
    assert record.inputs == {f"{key}:{stage}": made[stage].made for stage in made}


def test_a_stage_that_fails_records_nothing(results: pathlib.Path) -> None:
    out = "results/data/clean/code-0000000000/0-of-1"
    words = ["clean", "--spec", "none.json", "--archive", "a=b", "--output-folder", out]
    files = {f"{out}/a": "x", "results": "a folder is there"}
    with pytest.raises(IsADirectoryError):
        run(*words, writes=files)
    assert not pathlib.Path(out, "made_by.json").exists()


def test_code_that_is_edited_while_a_stage_runs_is_not_taken_for_what_ran(
    results: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter([{"a.py": (1, 1)}, {"a.py": (1, 2)}])
    monkeypatch.setattr(recording, "_module_states", lambda: next(states))
    out = "results/data/clean/code-0000000000/0-of-1"
    run("clean", "--spec", "none.json", "--archive", "a=b", "--output-folder", out, writes={f"{out}/a": "x"})
    assert read_records(pathlib.Path(out, "made_by.json"))["clean"].code == ""


def test_what_is_written_outside_a_folder_of_results_has_no_record(tmp_path: pathlib.Path) -> None:
    run(
        "clean",
        "--spec",
        "none.json",
        "--archive",
        "a=b",
        "--output-folder",
        str(tmp_path),
        writes={f"{tmp_path}/a": ""},
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_stage_does_not_read_what_it_wrote_before(results: pathlib.Path) -> None:
    """Train a run again: where its sinks write is its own folder."""
    folder = "results/smoke/runs/dense/seed0"
    train = ("--spec", "none.json", "--output-folder", folder, "--sink-folder", folder)
    for text in ("a", "longer"):
        run("train", *train, writes={f"{folder}/model": text})
        record = read_records(pathlib.Path(folder, "made_by.json"))["train"]
        assert (record.inputs, record.outputs["model"][0]) == ({}, len(text))


def test_only_the_first_of_several_processes_writes(results: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    out = "results/data/clean/code-0000000000/0-of-1"
    run("clean", "--spec", "none.json", "--archive", "a=b", "--output-folder", out, writes={f"{out}/a": "x"})
    assert not pathlib.Path(out, "made_by.json").exists()


def test_where_records_are(results: pathlib.Path) -> None:
    def entry(stage: str, *files: str) -> tuple[str, str]:
        found = entry_of(stage, [results / file for file in files], results)
        return found.key(results), found.home.relative_to(results).as_posix()

    run_folder = "smoke/runs/dense/seed0"
    assert entry("train", f"{run_folder}/tokenizer/a.json", f"{run_folder}/spec.json") == (
        f"{run_folder}/made_by.json:train",
        run_folder,
    )
    assert entry("evaluate", f"{run_folder}/probe.safetensors") == (f"{run_folder}/made_by.json:evaluate", run_folder)
    assert entry("index", "index.html")[0] == "made_by/index.index.json:index"
    # these share a folder, and run side by side
    drawn = ("smoke/figures/narrow/load.svg", "smoke/figures/load.svg", "smoke/figures/load.png")
    assert entry("draw", *drawn)[0] == "smoke/made_by/draw.load.json:draw"
    assert entry("compare", "smoke/tables/a.csv", "smoke/tables/b.csv") == (
        "smoke/made_by/compare.json:compare",
        "smoke",
    )


def test_stages_of_one_folder_keep_each_others_records(results: pathlib.Path) -> None:
    folder = "results/smoke/runs/dense/seed0"
    train = ("--spec", "none.json", "--mixture-folder", "results/data", "--output-folder", folder)
    run("train", *train, "--checkpoint-folder", "results/smoke/c", writes={f"{folder}/model": "m"})
    evaluate = ("--spec", f"{folder}/model", "--mixture-folder", "results/data", "--likelihood", f"{folder}/likelihood")
    run("evaluate", *evaluate, writes={f"{folder}/likelihood": "l"})
    records = read_records(pathlib.Path(folder, "made_by.json"))
    assert {stage: set(record.outputs) for stage, record in records.items()} == {
        "train": {"model"},
        "evaluate": {"likelihood"},
    }
    assert records["evaluate"].inputs == {"smoke/runs/dense/seed0/made_by.json:train": records["train"].made}


def test_a_record_is_found_from_a_file_a_folder_and_a_folder_below(results: pathlib.Path) -> None:
    home = results / "smoke/runs/dense/seed0"
    entry = Entry(home / "made_by.json", "train")
    (home / "tokenizer").mkdir(parents=True)
    recording.write(entry, Record("s", "c", {"model": (1, "a"), "tokenizer/t.json": (1, "b")}))
    for path in (home, home / "model", home / "tokenizer", home / "tokenizer/t.json"):
        assert [found for found, _ in Records(results).of_input(path)] == [entry], path
    assert Records(results).of_input(home / "other") == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"train": 1}', '{"train": {"outputs": {}}}', '{"train": {"outputs": []}}']
)
def test_a_damaged_record_is_none(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "made_by.json").write_text(text)
    assert read_records(tmp_path / "made_by.json") == {}


def test_options_that_are_no_paths_are_settings() -> None:
    def settings(verb: str, *words: str) -> dict[str, str]:
        parser = verb_parser(verb_files()[verb])
        return recording.settings_of(parser, parser.parse_args(words))

    assert settings("fetch", "--spec", "a", "--output", "b", "--shard", "0-of-1") == {}
    assert settings("fetch", "--spec", "a", "--output", "b", "--shard", "1-of-4") == {"shard": "1-of-4"}
    cost = ("--spec", "a", "--output", "b", "--lengths", "32", "64")
    assert settings("cost", *cost) == {"lengths": "32 64"}
    # threads and where metrics go change no byte of what follows
    train = ("--spec", "a", "--sink", "tensorboard", "--processes", "2")
    assert settings("train", *train) == {}


def test_the_folder_of_results_is_told_by_what_a_start_writes(results: pathlib.Path) -> None:
    assert results_of(results / "smoke/tables/runs.csv") == results
    (results / "source").rmdir()
    assert results_of(results / "smoke/tables/runs.csv") is None
