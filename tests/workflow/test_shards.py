"""Test a user's own folder of parquet as a domain of four shards, from the files to the data card, untrained.

The folder of the workflow and the files have names with every kind of character that a name may have.
"""

import json
import os
import pathlib
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.workflow.conftest import Workspace

STUDY = """\
extends: smoke.yaml
keep: {domains: []}
study: own
domains:
  mine:
    sources: {papers: {kind: files, paths: ["papers/**/*.parquet"]}}
    shards: 4
    duplicates: near
duplicates: {buckets: 2}
tokenizer: {kind: bpe, entries: 512}
held_out: {validation_blocks: 4, test_blocks: 8, probe_blocks: 8}
"""
NAMES = (
    "br{ac}e dir/b",
    "{wildcards.name}{{x}}",
    "no-break\u00a0space",
    "joined\u200dsoft\u00adhyphen\u202eright to left",
    "a[1]?*",
    "q'uo\"te\\",
    "$HOME `x`;&|<>!",
    "-d #100%,~=",
    "é e\u0301 日本 🙂",
)
WORDS = [f"{first}{second}{third}" for first in "bdfglm" for second in "aeiou" for third in "nrstk"]


def papers(seed: int) -> list[str]:
    """Write 400 unrelated texts, 20 near copies of some of them (one word of 120 changed), and 10 equal ones."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=120)) for _ in range(400)]
    near = [text.split() for text in texts[:20]]
    for words in near:
        words[60] = "elsewhere"
    return texts + [" ".join(words) for words in near] + texts[100:110]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("own") / "cl{o}ne $HOME's\u00a0é")
    (workspace.folder / "studies" / "own.yaml").write_text(STUDY)
    (workspace.folder / "papers").mkdir()
    texts = papers(0)
    random.Random(1).shuffle(texts)
    for number, name in enumerate(NAMES):
        file = workspace.folder / "papers" / f"{name}.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": texts[number :: len(NAMES)]}), file)
    done = workspace.snakemake("--configfile", "studies/own.yaml", "--cores", "2", "--", "data")
    assert done.returncode == 0, done.stdout
    return workspace


def stale(own: Workspace, study: str = "own") -> set[str]:
    """Return the rules that a run for the data would execute, from a dry run, which changes no result."""
    before = {path: path.stat().st_mtime_ns for path in (own.folder / "results").rglob("*")}
    done = own.snakemake("--configfile", f"studies/{study}.yaml", "--cores", "2", "--dry-run", "--", "data")
    assert done.returncode == 0, done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (own.folder / "results").rglob("*")}
    if "Nothing to be done" in done.stdout:
        return set()
    table = done.stdout.split("Job stats:", 1)[1].split("\n\n", 1)[0]
    return {line.split()[0] for line in table.splitlines()[3:]} - {"total", "data"}


def only(own: Workspace, pattern: str) -> pathlib.Path:
    (found,) = (own.folder / "results" / "data").glob(pattern)
    return found


@pytest.mark.parametrize("stage", ["fetch", "clean", "sort", "sign", "write_splits", "sketch", "encode"])
def test_a_stage_has_a_job_for_each_shard(own: Workspace, stage: str) -> None:
    folder = only(own, f"{stage}/*")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [f"{index}-of-4" for index in range(4)]


def test_every_text_is_read_once(own: Workspace) -> None:
    counts = [json.loads(file.read_text()) for file in only(own, "clean/*").glob("*/counts.json")]
    assert sum(each["read"] for each in counts) == 430


def test_duplicates_are_found_across_shards(own: Workspace) -> None:
    dropped = pq.read_table(only(own, "cluster/*") / "duplicates.parquet").to_pylist()
    assert sorted(row["reason"] for row in dropped) == ["exact_duplicate"] * 10 + ["near_duplicate"] * 20
    assert any(row["shard"] != row["of_shard"] for row in dropped)
    kept = sum(pq.read_metadata(file).num_rows for file in only(own, "write_splits/*").glob("*/*.parquet"))
    assert kept == 400


def test_the_mixture_and_the_card_are_made_of_all_shards(own: Workspace) -> None:
    mixture = json.loads((only(own, "balance/*") / "mixture.json").read_text())
    packed = json.loads((only(own, "pack/*") / "counts.json").read_text())
    assert mixture["train_blocks"] == {"mine": packed["splits"]["train"]["blocks"]}
    assert (own.folder / "results" / "own" / "data.html").is_file()


def test_the_second_run_has_nothing_to_do(own: Workspace) -> None:
    assert stale(own) == set()


def test_a_touched_file_reruns_nothing(own: Workspace) -> None:
    for file in (own.folder / "papers").rglob("*.parquet"):
        file.touch()
    assert stale(own) == set()


@pytest.mark.parametrize("date", ["new", "old"])
def test_a_changed_file_reruns_what_follows_it(own: Workspace, date: str) -> None:
    """`cp -p`, `tar x` and `rsync -t` give a changed file the date of its origin."""
    file = own.folder / "papers" / f"{NAMES[0]}.parquet"
    before, status = file.read_bytes(), file.stat()
    pq.write_table(pa.table({"text": ["quite another text than all the others"] * 3}), file)
    if date == "old":
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - 10**12))
    rules = stale(own)
    file.write_bytes(before)
    assert {"fetch", "clean", "sort", "fit", "pack", "balance", "card", "present"} <= rules
    assert stale(own) == set()


def results(own: Workspace, stage: str, name: str) -> dict[str, bytes]:
    """Return the files that a stage wrote for the study of this number of shards."""
    files = [file for file in only(own, f"{stage}/{name}-*").iterdir() if file.is_file()]
    # the manifest names the folders of the packs, and a folder's key knows the number of shards
    return {
        file.name: file.read_bytes() for file in files if file.name not in ("spec.json", "mixture.json", "made_by.json")
    }


def test_one_shard_gives_the_same_bytes(own: Workspace) -> None:
    stages = {"fit": "tokenizer", "pack": "mine", "balance": "mixture"}
    before = {stage: results(own, stage, name) for stage, name in stages.items()}
    tables = {file.name: file.read_bytes() for file in (own.folder / "results/own/tables").glob("*.csv")}
    assert sum(map(len, before.values())) > 20 and len(tables) == 10
    study = own.folder / "studies" / "own.yaml"
    study.write_text(STUDY.replace("shards: 4", "shards: 1").replace("buckets: 2", "buckets: 1"))
    (own.folder / "results" / "data").rename(own.folder / "results" / "data of four shards")
    done = own.snakemake("--configfile", "studies/own.yaml", "--cores", "2", "--", "data")
    assert done.returncode == 0, done.stdout
    assert {stage: results(own, stage, name) for stage, name in stages.items()} == before
    approximate = "data_formatting.csv"  # its counts of common beginnings are bounds, which depend on the shards
    for name in tables.keys() - {approximate}:
        assert (own.folder / "results/own/tables" / name).read_bytes() == tables[name], name
