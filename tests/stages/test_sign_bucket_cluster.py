"""Test sign, bucket and cluster: duplicates within and across shards and domains, against all pairs compared."""

import functools
import itertools
import json
import pathlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from speciate import cli
from speciate.data.dedup import tables
from speciate.data.documents import Document, read_documents, write_documents
from speciate.data.shard import Shard
from speciate.stages import bucket, cluster, sign

NEAR = {"ngram": 3, "similarity": 0.8, "permutations": 120, "bands": 20}
Corpus = dict[str, list[str]]
Verb = Callable[..., None]


@pytest.fixture
def verb(tmp_path: pathlib.Path) -> Verb:
    """Run a stage on a spec and arguments."""

    def call(module: Any, spec: dict[str, Any], *arguments: object) -> None:
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        name = module.__name__.rpartition(".")[2]
        cli.main([name, "--spec", str(tmp_path / "spec.json"), *map(str, arguments)])

    return call


def corpus(seed: int, count: int = 60) -> list[str]:
    """Make texts of random words: some with a few words replaced, some repeated, some with other punctuation."""
    draw = random.Random(seed)
    texts: list[str] = []
    for index in range(count):
        words = [f"w{draw.randrange(3000)}" for _ in range(draw.randrange(60, 200))]
        texts.append(" ".join(words))
        for _ in range(index % 4):
            words[draw.randrange(len(words))] = "changed"
            texts.append(" ".join(words))
        texts += [texts[-1]] * (index % 5 == 0) + [",\n".join(words)] * (index % 7 == 0)
    draw.shuffle(texts)
    return texts


@functools.cache
def runs(text: str) -> set[tuple[str, ...]]:
    words = text.replace(",\n", " ").split()
    return set(zip(words, words[1:], words[2:], strict=False))


def similarity(one: str, other: str) -> float:
    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


def pipeline(
    folder: pathlib.Path, verb: Verb, domains: Corpus, policies: list[str], shards: int = 1, buckets: int = 1
) -> dict[tuple[str, int, int], str]:
    """Run all three stages; return the text of each document by domain, shard and row."""
    near = {**NEAR, "buckets": buckets} if "near" in policies else None
    texts: dict[tuple[str, int, int], str] = {}
    for domain, all_texts in domains.items():
        for index in range(shards):
            part = folder / domain / str(Shard(index, shards))
            part.mkdir(parents=True)
            rows = [Document(f"{domain}/{i}", domain, f"g{i}", text) for i, text in enumerate(all_texts)][index::shards]
            write_documents(part / "documents.parquet", rows)
            texts |= {(domain, index, row): document.text for row, document in enumerate(rows)}
            spec = {"domain": domain, "seed": 0, "near": near}
            verb(sign, spec, "--documents", part / "documents.parquet", "--output-folder", part)
    parts = [
        {"name": name, "shards": shards, "duplicates": policy} for name, policy in zip(domains, policies, strict=True)
    ]
    signed = [f"{domain}={folder / domain}" for domain in domains]
    pairs = [folder / f"pairs{index}.npy" for index in range(buckets if near else 0)]
    for index, file in enumerate(pairs):
        spec = {"scope": "domains", "parts": parts, "near": near}
        verb(bucket, spec, "--signed", *signed, "--bucket", Shard(index, buckets), "--output", file)
    inputs = ["--pairs", *pairs] if pairs else []
    spec = {"scope": "domains", "parts": parts, "near": near, "seed": 0}
    verb(cluster, spec, "--signed", *signed, *inputs, "--output-folder", folder / "out")
    return texts


def dropped(folder: pathlib.Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "out" / "duplicates.parquet").to_pylist()


def place(row: dict[str, Any], of: str = "") -> tuple[str, int, int]:
    return row[f"{of}domain"], row[f"{of}shard"], row[f"{of}row"]


@pytest.mark.parametrize(("shards", "buckets"), [(1, 1), (4, 3)])
def test_what_is_dropped_has_its_like_in_what_is_kept(
    tmp_path: pathlib.Path, verb: Verb, shards: int, buckets: int
) -> None:
    texts = pipeline(tmp_path, verb, {"a": corpus(0), "b": corpus(1) + corpus(0)[:40]}, ["near"] * 2, shards, buckets)
    rows = dropped(tmp_path)
    assert [place(row) for row in rows] == sorted(place(row) for row in rows)
    lost = {place(row) for row in rows}
    for row in rows:
        text, kept = texts[place(row)], texts[place(row, "of_")]
        assert place(row, "of_") not in lost
        assert place(row, "of_") < place(row)
        assert row["reason"] == ("exact_duplicate" if text == kept else "near_duplicate")
        assert similarity(text, kept) >= 0.8
    left = [text for where, text in texts.items() if where not in lost]
    assert max(itertools.starmap(similarity, itertools.combinations(left, 2))) < 0.8
    assert {row["reason"] for row in rows} == {"exact_duplicate", "near_duplicate"}


def test_shards_change_only_which_of_a_cluster_is_kept(tmp_path: pathlib.Path, verb: Verb) -> None:
    seen = []
    for shards in (1, 4):
        folder = tmp_path / str(shards)
        texts = pipeline(folder, verb, {"a": corpus(0)}, ["near"], shards)
        members: dict[int, set[tuple[str, int, int]]] = {}
        for row in dropped(folder):
            members.setdefault(row["cluster"], set()).update((place(row), place(row, "of_")))
        clusters = pq.read_table(folder / "out" / "clusters.parquet").to_pylist()
        assert {row["cluster"]: row["size"] for row in clusters} == {key: len(each) for key, each in members.items()}
        seen.append(sorted(sorted(texts[where] for where in each) for each in members.values()))
    assert seen[0] == seen[1]
    assert len(seen[0]) > 40


def test_policies_say_what_a_domain_may_lose(tmp_path: pathlib.Path, verb: Verb) -> None:
    same = corpus(0)
    domains = {"kept": same, "equal": same[:50] + corpus(2, 10), "like": same + corpus(2, 10)}
    texts = pipeline(tmp_path, verb, domains, ["keep", "exact", "near"])
    rows = dropped(tmp_path)
    assert {(row["domain"], row["reason"]) for row in rows} >= {
        ("equal", "exact_duplicate"),
        ("like", "near_duplicate"),
    }
    assert not any(row["domain"] == "kept" for row in rows)
    assert {row["reason"] for row in rows if row["domain"] == "equal"} == {"exact_duplicate"}
    assert all(texts[place(row)] == texts[place(row, "of_")] for row in rows if row["domain"] == "equal")
    left = [text for where, text in texts.items() if where not in {place(row) for row in rows}]
    # those of the first domain stay, and none of their copies
    assert len([text for text in left if text in set(same)]) == len(same)
    reported = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert reported["documents"] == sum(map(len, domains.values()))
    for name, texts_of in domains.items():
        reasons = [row["reason"] for row in rows if row["domain"] == name]
        counted = reported["by_domain"][name]
        assert counted["documents"] == len(texts_of)
        assert [counted[f"{reason}s"] for reason in ("exact_duplicate", "near_duplicate")] == [
            reasons.count("exact_duplicate"),
            reasons.count("near_duplicate"),
        ]
        for other in domains:
            pairs = [row for row in rows if (row["domain"], row["of_domain"]) == (name, other)]
            assert reported["dropped_for"][name][other] == len(pairs)
    clusters = pq.read_table(tmp_path / "out" / "clusters.parquet").to_pylist()
    assert reported["clusters"] == len(clusters)
    assert reported["largest"] == max(row["size"] for row in clusters) == reported["largest_clusters"][0]["size"]
    for one, other in itertools.product(domains, domains):
        both = sum({one, other} <= set(row["domains"]) for row in clusters)
        assert reported["shared_clusters"][one][other] == both
    assert len(reported["largest_clusters"]) == 8


def test_equal_texts_alone_need_no_signatures(tmp_path: pathlib.Path, verb: Verb) -> None:
    texts = pipeline(tmp_path, verb, {"a": ["x", "y", "x", "z", "y", "x", "X"]}, ["exact"], 2)
    kept = {where for where in texts if where not in {place(row) for row in dropped(tmp_path)}}
    assert kept == {("a", 0, 0), ("a", 0, 2), ("a", 0, 3), ("a", 1, 1)}  # x y X | z y x, by shard
    assert [texts[where] for where in sorted(kept)] == ["x", "y", "X", "z"]
    assert [row["reason"] for row in pq.read_table(tmp_path / "out" / "clusters.parquet").to_pylist()] == (
        ["exact_duplicate"] * 2
    )


@pytest.mark.parametrize("policies", [["near", "near"], ["exact", "exact"]])
@pytest.mark.parametrize("texts", [[], ["one text"]])
def test_empty_shards_and_scopes(tmp_path: pathlib.Path, verb: Verb, policies: list[str], texts: list[str]) -> None:
    pipeline(tmp_path, verb, {"a": texts, "b": []}, policies, 3)
    assert dropped(tmp_path) == []
    reported = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert (reported["documents"], reported["clusters"], reported["largest"]) == (len(texts), 0, 0)


def test_twice_gives_the_same_bytes(tmp_path: pathlib.Path, verb: Verb) -> None:
    seen = []
    for name in ("first", "second"):
        pipeline(tmp_path / name, verb, {"a": corpus(0, 20), "b": corpus(1, 20)}, ["near", "exact"], 2, 2)
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        seen.append({file.relative_to(tmp_path / name): file.read_bytes() for file in files})
    assert seen[0] == seen[1]


def test_row_groups_are_those_of_one_table(tmp_path: pathlib.Path, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 7)
    pipeline(tmp_path, verb, {"a": corpus(0), "b": corpus(0)}, ["near", "near"])
    for name, schema in (("duplicates", tables.DUPLICATES), ("clusters", tables.CLUSTERS)):
        file = tmp_path / "out" / f"{name}.parquet"
        table = pq.read_table(file)
        assert len(table) > 30
        settings = {"compression": "zstd", "write_page_checksum": True, "row_group_size": 7}
        pq.write_table(table.cast(schema), tmp_path / "again.parquet", **settings)
        assert file.read_bytes() == (tmp_path / "again.parquet").read_bytes()


def refused(verb: Verb, capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        verb(*arguments)
    return capsys.readouterr().err


def test_one_id_twice_is_refused(tmp_path: pathlib.Path, verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline(tmp_path, verb, {"a": corpus(0, 4), "b": corpus(1, 4)}, ["exact", "exact"], 2)
    part = tmp_path / "b" / "1-of-2"
    rows = list(read_documents(part / "documents.parquet"))
    rows[1] = Document("b/0", "b", "g", "another text")
    write_documents(part / "documents.parquet", rows)
    spec = {"domain": "b", "seed": 0, "near": None}
    verb(sign, spec, "--documents", part / "documents.parquet", "--output-folder", part)
    parts = [{"name": name, "shards": 2, "duplicates": "exact"} for name in ("a", "b")]
    signed = [f"{name}={tmp_path / name}" for name in ("a", "b")]
    spec = {"scope": "domains", "parts": parts, "near": None, "seed": 0}
    message = refused(verb, capsys, cluster, spec, "--signed", *signed, "--output-folder", tmp_path / "new")
    assert "error: domain b: source b: two records have the id '0'" in message
    assert not (tmp_path / "new").exists()


def test_what_does_not_belong_together_is_refused(
    tmp_path: pathlib.Path, verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(tmp_path, verb, {"a": corpus(0, 4)}, ["near"])
    part = [{"name": "a", "shards": 1, "duplicates": "near"}]
    spec = {"scope": "a", "parts": part, "near": {**NEAR, "buckets": 1}}
    end = ["--output-folder", tmp_path / "new"]
    for signed in (["b=x"], ["a=x", "a=y"], ["x"]):
        assert "--signed: needs each of a once" in refused(
            verb, capsys, cluster, spec, "--signed", *signed, "--pairs", "x", *end
        )
    signed_scope = ["--signed", f"a={tmp_path / 'a'}"]
    assert "--pairs: a: needs the pairs of every bucket, but 0 files" in refused(
        verb, capsys, cluster, spec, *signed_scope, *end
    )
    for pairs in (np.array([[0, 99]]), np.array([0, 1]), np.array([[-1, 0]])):
        np.save(tmp_path / "pairs.npy", pairs)
        message = refused(verb, capsys, cluster, spec, *signed_scope, "--pairs", tmp_path / "pairs.npy", *end)
        assert "pairs.npy: does not hold pairs of these" in message
    exact = tmp_path / "exact"
    pipeline(exact, verb, {"a": corpus(0, 4)}, ["exact"])
    message = refused(verb, capsys, bucket, spec, "--signed", f"a={exact / 'a'}", "--output", tmp_path / "new.npy")
    assert "0-of-1: is signed with 0 bands, not 20" in message
    message = refused(verb, capsys, bucket, spec, "--signed", "a=nowhere", "--output", tmp_path / "new.npy")
    assert "there is no such file" in message and "nowhere" in message
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.npy").exists()
