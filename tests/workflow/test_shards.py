"""Test a user's own folder of parquet as a domain of four shards, from the files to the data card, untrained."""

import json
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
    sources: {papers: {kind: files, paths: ["papers/*.parquet"]}}
    shards: 4
    duplicates: near
duplicates: {buckets: 2}
tokenizer: {kind: bpe, entries: 512}
held_out: {validation_blocks: 4, test_blocks: 8, probe_blocks: 8}
"""
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
    workspace = Workspace(tmp_path_factory.mktemp("own") / "clone")
    (workspace.folder / "studies" / "own.yaml").write_text(STUDY)
    (workspace.folder / "papers").mkdir()
    texts = papers(0)
    random.Random(1).shuffle(texts)
    for number in range(9):
        part = pa.table({"text": texts[number::9]})
        pq.write_table(part, workspace.folder / "papers" / f"{number}.parquet")
    done = workspace.snakemake("--configfile", "studies/own.yaml", "--cores", "2", "--", "data")
    assert done.returncode == 0, done.stdout
    return workspace


def only(own: Workspace, pattern: str) -> pathlib.Path:
    (found,) = (own.folder / "results" / "data").glob(pattern)
    return found


@pytest.mark.parametrize("stage", ["fetch", "clean", "sign", "write_splits", "sketch", "encode", "pack"])
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
    packed = [json.loads(file.read_text()) for file in only(own, "pack/*").glob("*/counts.json")]
    assert mixture["train_blocks"] == {"mine": sum(each["splits"]["train"]["blocks"] for each in packed)}
    assert (own.folder / "results" / "own" / "data.html").is_file()


def test_the_second_run_has_nothing_to_do(own: Workspace) -> None:
    done = own.snakemake("--configfile", "studies/own.yaml", "--cores", "2", "--", "data")
    assert "Nothing to be done" in done.stdout, done.stdout


def test_a_changed_file_reruns_what_follows_it(own: Workspace) -> None:
    file = own.folder / "papers" / "3.parquet"
    before = file.read_bytes()
    pq.write_table(pa.table({"text": ["quite another text than all the others"] * 3}), file)
    done = own.snakemake("--configfile", "studies/own.yaml", "--cores", "2", "--dry-run", "--", "data")
    file.write_bytes(before)
    assert "fetch" in done.stdout and "clean" in done.stdout, done.stdout
