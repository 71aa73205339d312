"""Run small texts through every data stage, and check that the card's tables show what was planted in them."""

import json
import pathlib
import random
import shutil

import numpy as np
import pandas as pd
import pytest

from speciate.cli import execute
from speciate.config.extends import extend
from speciate.config.stage import SPLITS
from speciate.config.stage_specs import CARDED
from speciate.config.study import parse_study
from speciate.data.card.columns import COLUMNS
from speciate.data.dedup.shingles import shingle_hashes
from speciate.data.documents import read_documents
from speciate.graph.study_graph import StudyGraph

ROOT = pathlib.Path(__file__).parents[2]
PREFIX = "Question of the day: "
LICENCE = " ".join(f"clause{number}" for number in range(40))


def words(seed: int, count: int) -> str:
    """Return a text that shares no word n-gram with the text of another seed."""
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(10**6)}" for _ in range(count))


def texts() -> dict[str, list[str]]:
    """Return texts. Code: 37 with one licence, 2 equal, 3 short. Prose: 30 with one prefix, and one of code's texts."""
    code = [f"{words(seed, 60)} {LICENCE}" for seed in range(37)] + ["short"] * 3
    code[20] = code[3]
    prose = [f"{PREFIX}{words(1000 + seed, 50 + 10 * seed)}" for seed in range(30)]
    prose[7] = prose[7] + "\u200b end"
    return {"code": code, "prose": [*prose, code[4]]}


def settings(folder: pathlib.Path) -> dict:
    """Return a study of two domains, the first in two shards."""
    for name, domain_texts in texts().items():
        for part in range(2):
            lines = [json.dumps({"text": text}) for text in domain_texts[part::2]]
            (folder / f"{name}{part}.jsonl").write_text("\n".join(lines) + "\n")
    sources = {name: {name: {"kind": "files", "paths": [str(folder / f"{name}*.jsonl")]}} for name in texts()}
    length = [{"kind": "length", "min_characters": 20}]
    change = {
        "tokenizer": {"kind": "bpe", "entries": 300},
        "block_length": 32,
        "duplicates": {"across_domains": True},
        "split": {"validation": 0.1, "test": 0.2, "probe": 0.1},
        "held_out": {"validation_blocks": 2, "test_blocks": 4, "probe_blocks": 2},
    }
    study = extend({**change, "extends": str(ROOT / "config.yaml")}, folder)
    study["domains"] = {
        "code": {"sources": sources["code"], "filters": length, "shards": 2, "licences": {"code": "MIT"}},
        "prose": {"sources": sources["prose"], "max_tokens": 6000, "max_bytes": 40000},
    }
    return study


def verb(name: str, *arguments: object) -> None:
    """Run one stage in this process."""
    execute([name, *map(str, arguments)])


def run_stages(plan: StudyGraph) -> None:
    """Run every data stage of a study, in order."""
    plan.write_specs()
    domains = list(plan.study.domains)

    def at(stage: str, name: str) -> pathlib.Path:
        return plan.folder(stage, name)

    def stage(name: str, unit: str, *arguments: object, shard: str = "", output: str = "--output-folder") -> None:
        folder = at(name, unit)
        verb(name, "--spec", folder / "spec.json", *arguments, output, folder / shard)

    for domain in domains:
        for shard in plan.shards(domain):
            archives = dict(zip(plan.sources_of(domain), plan.inputs("clean", domain, shard)["fetch"], strict=True))
            for source, file in archives.items():
                archive = pathlib.Path(file)
                archive.parent.mkdir(parents=True, exist_ok=True)
                stage("fetch", source, "--shard", shard, shard=f"{shard}/archive", output="--output")
            pairs = [f"--archive={source}={file}" for source, file in archives.items()]
            stage("clean", domain, *pairs, "--shard", shard, shard=shard)
        for shard in plan.shards(domain):
            stage("sort", domain, "--cleaned", at("clean", domain), "--shard", shard, shard=shard)
            stage("sign", domain, "--documents", at("sort", domain) / shard / "documents.parquet", shard=shard)
    stage("cluster", "domains", "--signed", *(f"{domain}={at('sign', domain)}" for domain in domains))
    duplicates = at("cluster", "domains") / "duplicates.parquet"
    for domain in domains:
        stage("assign_splits", domain, "--signed", at("sign", domain), "--duplicates", duplicates)
        groups = at("assign_splits", domain) / "groups.npy"
        for shard in plan.shards(domain):
            documents = at("sort", domain) / shard / "documents.parquet"
            inputs = ("--documents", documents, "--duplicates", duplicates, "--groups", groups)
            stage("write_splits", domain, *inputs, "--shard", shard, shard=shard)
            stage("sketch", domain, "--splits", at("write_splits", domain) / shard, shard=shard)
    train = [part / "train.parquet" for domain in domains for part in plan.parts("write_splits", domain)]
    stage("fit", "tokenizer", "--documents", *train)
    for domain in domains:
        for shard in plan.shards(domain):
            tokenizer = ("--tokenizer-folder", at("fit", "tokenizer"))
            stage("encode", domain, "--split-folder", at("write_splits", domain) / shard, *tokenizer, shard=shard)
        stage("pack", domain, "--encoded-folder", at("encode", domain), *tokenizer)
    folders = {name: [f"{domain}={at(name, domain)}" for domain in domains] for name in ("pack", "encode")}
    tokenizer = ("--tokenizer-folder", at("fit", "tokenizer"))
    stage("balance", "mixture", "--packed", *folders["pack"], "--encoded", *folders["encode"], *tokenizer)


def card(plan: StudyGraph, output: pathlib.Path, **folders: pathlib.Path) -> None:
    """Make the card of a study whose stages have run; `folders` replace the stages' folders of code."""
    arguments: list[object] = ["--spec", plan.spec_file(plan.card_spec())]
    for stage in ("clean", "sort", "assign_splits", "write_splits", "sketch", "encode", "pack"):
        stage_folders = {domain: plan.folder(stage, domain) for domain in plan.study.domains}
        stage_folders["code"] = folders.get(stage, stage_folders["code"])
        arguments += [f"--{stage}", *(f"{domain}={folder}" for domain, folder in stage_folders.items())]
    arguments += ["--cluster", f"domains={folders.get('cluster', plan.folder('cluster', 'domains'))}"]
    arguments += ["--mixture-folder", folders.get("mixture", plan.folder("balance", "mixture"))]
    verb("card", *arguments, "--output-folder", output)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> StudyGraph:
    folder = tmp_path_factory.mktemp("card")
    graph = StudyGraph(parse_study(settings(folder), "test"), folder / "results")
    run_stages(graph)
    return graph


@pytest.fixture(scope="module")
def tables(plan: StudyGraph) -> dict[str, pd.DataFrame]:
    card(plan, plan.home / "tables")
    return {name: pd.read_parquet(plan.home / "tables" / f"{name}.parquet") for name in CARDED}


def documents(plan: StudyGraph, domain: str, split: str) -> list[str]:
    """Return the texts of a split, over all shards."""
    parts = plan.parts("write_splits", domain)
    return [document.text for part in parts for document in read_documents(part / f"{split}.parquet")]


def row(table: pd.DataFrame, **keys: object) -> pd.Series:
    """Return the only row with these values."""
    for name, value in keys.items():
        table = table[table[name] == value]
    assert len(table) == 1, (keys, table)
    return table.iloc[0]


def test_the_tables_are_those_that_are_declared(tables) -> None:
    assert set(CARDED) == set(COLUMNS)
    for name, table in tables.items():
        assert list(table.columns) == list(COLUMNS[name]), name


def test_sources_are_counted_over_shards_and_named(tables) -> None:
    code = row(tables["data_sources"], domain="code", source="code")
    assert (code["kind"], code["licence"], code["documents_read"], code["documents_kept"]) == ("files", "MIT", 40, 37)
    assert code["bytes_kept"] == sum(len(text.encode()) for text in texts()["code"][:37])
    assert code["what"].endswith("code*.jsonl")


def test_domains_hold_what_the_stages_hold(plan: StudyGraph, tables) -> None:
    for domain in ("code", "prose"):
        for split in SPLITS:
            actual = row(tables["data_domains"], domain=domain, split=split)
            split_texts = documents(plan, domain, split)
            assert actual["documents"] == len(split_texts)
            assert actual["bytes"] == sum(len(text.encode()) for text in split_texts)
            by_shard = [pd.read_parquet(part / f"{split}.documents.parquet") for part in plan.parts("encode", domain)]
            encoded = pd.concat(by_shard).head(int(actual["encoded"]))  # the others are beyond max_tokens
            tokens = [*(encoded["stop"] - encoded["start"])]
            assert actual["tokens"] == sum(tokens)
            blocks = len(np.load(plan.folder("pack", domain) / f"{split}.blocks.npy"))
            assert actual["blocks"] == blocks
            assert actual["tokens_lost"] == sum(tokens) + actual["encoded"] - 32 * blocks
            assert actual["tokens_used"] == 32 * actual["blocks_used"]
    held_out = tables["data_domains"].set_index(["domain", "split"])["blocks_used"]
    assert held_out["code", "test"] == held_out["prose", "test"] == 4
    assert held_out["code", "train"] == held_out["prose", "train"] > 0
    assert tables["data_domains"]["epochs"].max() <= 1


def test_every_document_read_is_kept_somewhere_or_dropped_for_one_reason(tables) -> None:
    drops = tables["data_drops"].set_index(["domain", "stage", "reason"])["documents"]
    assert drops["code", "clean", "too_short"] == 3
    assert drops["code", "cluster", "exact_duplicate"] == 1
    assert drops["prose", "cluster", "exact_duplicate"] == 1  # a duplicate of one of code's texts
    assert drops["prose", "sort", "max_bytes"] > 0
    assert drops["prose", "pack", "max_tokens"] > 0
    read = tables["data_sources"].set_index("domain")["documents_read"]
    encoded = tables["data_domains"].groupby("domain")["encoded"].sum()
    assert (read - drops.groupby("domain").sum() == encoded).all()
    assert row(tables["data_drops"], domain="code", reason="too_short")["share"] == 3 / 40


def test_lengths_count_every_document_once(plan: StudyGraph, tables) -> None:
    lengths = tables["data_lengths"]
    sums = lengths.groupby(["domain", "split", "unit"])["documents"].sum()
    for _, domain_row in tables["data_domains"].iterrows():
        assert sums[domain_row["domain"], domain_row["split"], "tokens"] == domain_row["encoded"]
        assert sums[domain_row["domain"], domain_row["split"], "characters"] == domain_row["documents"]
    of_code = lengths[(lengths["domain"] == "code") & (lengths["split"] == "train") & (lengths["unit"] == "characters")]
    text_lengths = [len(text) for text in documents(plan, "code", "train")]
    for _, octave in of_code.iterrows():
        assert octave["documents"] == sum(octave["low"] <= length <= octave["high"] for length in text_lengths)


def test_overlaps_are_those_of_the_texts(plan: StudyGraph, tables) -> None:
    def runs(domain: str, split: str) -> set[int]:
        return {run for text in documents(plan, domain, split) for run in shingle_hashes(text, 13).tolist()}

    overlaps = tables["data_overlaps"]
    # the splits of one domain, and the splits in the other domain's training text
    assert len(overlaps) == 2 * 4 * 3 + 2 * 4
    for _, overlap in overlaps.iterrows():
        part, other = runs(overlap["domain"], overlap["split"]), runs(overlap["in_domain"], overlap["in_split"])
        assert overlap["share"] == pytest.approx(len(part & other) / len(part))
        assert overlap["similarity"] == pytest.approx(len(part & other) / len(part | other))
        assert (overlap["compared"], overlap["standard_error"]) == (len(part), 0)
    licence = row(overlaps, domain="code", split="test", in_domain="code", in_split="train")
    assert licence["share"] > 0.02  # the 28 runs inside the licence, which all these texts share


def test_duplicates_show_what_was_dropped_beside_what_was_kept(tables) -> None:
    duplicates = tables["data_duplicates"]
    assert duplicates[["scope", "reason", "domains", "size", "clusters"]].to_numpy().tolist() == [
        ["domains", "exact_duplicate", "code", 2, 1],
        ["domains", "exact_duplicate", "code, prose", 2, 1],
    ]
    shown = tables["data_samples"]
    shown = shown[shown["what"] == "duplicate"]
    assert len(shown) == 2
    across = row(shown, domain="prose")
    assert across["of_id"].startswith("code/")
    assert across["excerpt"] == across["of_excerpt"] == texts()["code"][4][:600]
    assert across["note"] == "one of 2"


def test_samples_are_documents_of_their_split_and_reason(plan: StudyGraph, tables) -> None:
    samples = tables["data_samples"]
    kept = samples[samples["what"] == "kept"]
    for (domain, split), mine in kept.groupby(["domain", "split"]):
        split_texts = documents(plan, domain, split)
        assert len(mine) == min(5, len(split_texts))
        assert all(any(text.startswith(excerpt) for text in split_texts) for excerpt in mine["excerpt"])
    dropped = samples[samples["what"] == "dropped"]
    assert set(dropped["reason"]) == {"too_short"}
    assert dropped["excerpt"].tolist() == ["short"] * 3


def test_a_shared_beginning_is_found_and_warned_of(tables) -> None:
    formatting = tables["data_formatting"]
    clean = formatting[(formatting["domain"] == "prose") & (formatting["text"] == "clean")]
    prefix = clean[clean["measure"] == "prefix"].iloc[0]
    assert prefix["value"].startswith(PREFIX)
    assert (prefix["documents"], prefix["share"]) == (30, 30 / 31)
    assert row(clean, measure="unseen")["value"] == "U+200B ZERO WIDTH SPACE"
    warnings = tables["data_warnings"].groupby("domain")["warning"].agg(" ".join)
    assert f"97% of the documents begin alike, with '{PREFIX}" in warnings["prose"]
    assert "states no licence of source prose" in warnings["prose"]
    assert "source code has no pin" in warnings["code"]
    assert "states no licence" not in warnings["code"]


def test_a_text_in_training_and_test_is_warned_of(tables) -> None:
    shares = tables["data_overlaps"]
    shares = shares[(shares["split"] != "train") & (shares["in_split"] == "train") & (shares["share"] > 0.05)]
    warned = tables["data_warnings"]["warning"].str.contains("are in its own training text too").sum()
    assert warned == len(shares) > 0


def test_the_same_inputs_give_the_same_bytes(plan: StudyGraph, tables, tmp_path: pathlib.Path) -> None:
    card(plan, tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == sorted(f"{table}.{suffix}" for table in CARDED for suffix in ("csv", "parquet"))
    for name in names:
        assert (tmp_path / name).read_bytes() == (plan.home / "tables" / name).read_bytes(), name
    samples = pd.read_csv(tmp_path / "data_samples.csv", keep_default_na=False)
    assert samples["excerpt"].tolist() == tables["data_samples"]["excerpt"].tolist()


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("clean", "1-of-2/counts.json"),
        ("clean", "1-of-2/dropped.parquet"),
        ("write_splits", "0-of-2/counts.json"),
        ("assign_splits", "counts.json"),
        ("sketch", "1-of-2/samples.parquet"),
        ("sketch", "1-of-2/test.runs.npy"),
        ("encode", "0-of-2/train.documents.parquet"),
        ("pack", "counts.json"),
        ("sort", "1-of-2/counts.json"),
        ("cluster", "clusters.parquet"),
        ("mixture", "mixture.json"),
        ("mixture", "test.domain.npy"),
    ],
)
def test_a_missing_file_is_named(plan: StudyGraph, tmp_path: pathlib.Path, stage: str, file: str) -> None:
    stage_and_name = {"cluster": ("cluster", "domains"), "mixture": ("balance", "mixture")}.get(stage, (stage, "code"))
    shutil.copytree(plan.folder(*stage_and_name), tmp_path / "copy")
    (tmp_path / "copy" / file).unlink()
    with pytest.raises((ValueError, OSError), match=pathlib.Path(file).name):
        card(plan, tmp_path / "out", **{stage: tmp_path / "copy"})


def test_counts_of_another_shape_are_named(plan: StudyGraph, tmp_path: pathlib.Path) -> None:
    shutil.copytree(plan.folder("pack", "code"), tmp_path / "copy")
    file = tmp_path / "copy" / "counts.json"
    content = json.loads(file.read_text())
    del content["splits"]["test"]["blocks"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"counts\.json: lacks the counts test blocks"):
        card(plan, tmp_path / "out", pack=tmp_path / "copy")


def test_a_domain_that_is_not_given_is_named(plan: StudyGraph, tmp_path: pathlib.Path) -> None:
    spec = plan.spec_file(plan.card_spec())
    pairs = [
        f"--{stage}=code=x"
        for stage in ("clean", "sort", "assign_splits", "write_splits", "sketch", "encode", "pack", "cluster")
    ]
    with pytest.raises(ValueError, match=r"--clean: needs NAME=DIR once for each of code, prose, not code=x"):
        verb("card", "--spec", spec, *pairs, "--mixture-folder", tmp_path, "--output-folder", tmp_path)


def test_what_the_tokenizer_lost_is_in_the_card(plan: StudyGraph, tmp_path: pathlib.Path) -> None:
    shutil.copytree(plan.folder("encode", "code"), tmp_path / "copy")
    for shard, lost in ((0, 5), (1, 7)):
        file = tmp_path / "copy" / f"{shard}-of-2" / "counts.json"
        content = json.loads(file.read_text())
        content["splits"]["train"] |= {"documents_with_loss": 1, "lost_characters": lost, "lost_bytes": 3 * lost}
        file.write_text(json.dumps(content))
    card(plan, tmp_path / "out", encode=tmp_path / "copy")
    rows = pd.read_parquet(tmp_path / "out" / "data_domains.parquet").set_index(["domain", "split"])
    assert rows.loc[("code", "train"), ["lost_characters", "lost_bytes"]].tolist() == [12, 36]
    assert rows["lost_characters"].sum() == 12
