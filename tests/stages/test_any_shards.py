"""Run all data stages of small studies whose texts lie in other files, rows and shards: the results are the same bytes.

Each study has duplicates, near-duplicates, groups that two sources share, and limits in bytes and tokens. What each
document's split should be is computed here again, from its text and its group alone.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import random
import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.bad_input import small

from speciate.config.stage import SPLITS
from speciate.config.study import parse_study
from speciate.data.blocks import TrainBlocks
from speciate.data.documents import read_documents
from speciate.graph.study_graph import StudyGraph

Record = dict[str, str]
NFC, NFD = "José", unicodedata.normalize("NFD", "José")


def records() -> tuple[list[Record], list[Record]]:
    """Return the records of two sources: texts, the same again, near copies, and groups that both sources have."""
    first = [{"text": f"x = {seed}\n# {small.text_of(seed, 60)}"} for seed in range(41)]
    first += [dict(record) for record in first[:20]]
    first += [{"text": first[seed]["text"] + " more"} for seed in (3, 17, 30)]
    first += [{"text": small.text_of(100 + seed, 30), "author": f"author {seed % 3}"} for seed in range(9)]
    first += [{"text": small.text_of(200 + seed, 30), "author": NFC} for seed in range(3)]
    second = [{"text": small.text_of(300 + seed, 30), "author": f"author {seed % 3}"} for seed in range(9)]
    second += [{"text": small.text_of(400 + seed, 30), "author": NFD} for seed in range(3)]
    return first, second


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the records of the sources lie in files, and in how many shards they are read."""

    shards: int
    seed: int | None = None
    """Seed of another order of the records and other file names; None: in order, in one file a source."""
    buckets: int = 1

    def write(self, folder: pathlib.Path) -> None:
        """Write the files of the sources plain/, with one record a group, and one/ and two/, grouped by author."""
        first, second = records()
        draw = random.Random(self.seed)
        by_source = {
            "plain": [record for record in first if "author" not in record],
            "one": [record for record in first if "author" in record],
            "two": second,
        }
        for source, found in by_source.items():
            (folder / source).mkdir(parents=True)
            num_files = 1 if self.seed is None else draw.randrange(2, 5)
            if self.seed is not None:
                draw.shuffle(found)
            for number in range(num_files):
                name = f"{number}" if self.seed is None else f"{draw.randrange(10**6)} {number}"
                lines = [json.dumps(record) + "\n" for record in found[number::num_files]]
                (folder / source / f"{name}.jsonl").write_text("".join(lines))

    def settings(self, **domain: Any) -> dict[str, Any]:
        """Return the study file as plain data; `domain` holds further settings of the domain."""
        study = small.settings()
        sources = {
            name: {"kind": "files", "paths": [f"{name}/*.jsonl"], **({} if name == "plain" else {"group": "author"})}
            for name in ("plain", "one", "two")
        }
        if self.seed is not None:
            sources = dict(sorted(sources.items()))
        study["domains"] = {"mine": {"sources": sources, "shards": self.shards, "duplicates": "near", **domain}}
        study["duplicates"] = {"buckets": self.buckets}
        study["held_out"] = {"validation_blocks": 4, "test_blocks": 4, "probe_blocks": 4}
        study["tokenizer"] = {"kind": "bpe", "entries": 280, "max_bytes": 6000}
        return study


def run(folder: pathlib.Path, layout: Layout, **domain: Any) -> StudyGraph:
    """Run all data stages; return the graph, whose paths are relative to `folder`."""
    layout.write(folder)
    with small.within(folder):
        graph = StudyGraph(parse_study(layout.settings(**domain), "mine.yaml"), pathlib.Path("results"))
        graph.write_specs()
        for command in small.commands(graph):
            done = small.call(command)
            assert done.status == 0, done.said
    return graph


def texts_of(folder: pathlib.Path, graph: StudyGraph) -> dict[str, list[str]]:
    """Return the texts of each split, in order, over all shards."""
    parts = [folder / part for part in graph.parts("write_splits", "mine")]
    return {
        split: [document.text for part in parts for document in read_documents(part / f"{split}.parquet")]
        for split in SPLITS
    }


def results(folder: pathlib.Path, graph: StudyGraph, *, ids: bool) -> dict[str, str]:
    """Return digests of all that later stages and readers see; `ids`: with the documents' names and counts of files."""
    found: dict[str, Any] = {f"texts {split}": texts for split, texts in texts_of(folder, graph).items()}
    tokenizer = folder / graph.folder("fit", "tokenizer")
    found |= {file.name: file.read_bytes() for file in sorted(tokenizer.iterdir()) if file.name != "spec.json"}
    encoded = [folder / part for part in graph.parts("encode", "mine")]
    for split in SPLITS[1:]:
        found[f"tokens {split}"] = b"".join(np.load(part / f"{split}.tokens.npy").tobytes() for part in encoded)
    pack = folder / graph.folder("pack", "mine")
    found |= {f"pack {file.name}": file.read_bytes() for file in sorted(pack.iterdir()) if file.name != "spec.json"}
    mixture = folder / graph.folder("balance", "mixture")
    found |= {f"mixture {file.name}": file.read_bytes() for file in sorted(mixture.glob("*.npy"))}
    for file in sorted(mixture.glob("*.parquet")):
        table = pq.read_table(file)
        found[f"mixture {file.name}"] = (table if ids else table.drop_columns("id")).to_pylist()
    manifest = json.loads((mixture / "mixture.json").read_text())
    found["manifest"] = {key: value for key, value in manifest.items() if key != "packs"}  # paths hold keys
    rows = TrainBlocks(mixture)
    found["blocks"] = rows.tokens(np.arange(len(rows))).tobytes()
    for file in sorted((folder / graph.home / "tables").glob("data_*.csv")):
        # approximate counts of common beginnings depend on where texts are read, within the bounds that they state
        if file.stem not in ("data_formatting", "data_warnings") and (ids or file.stem in CONTENT_TABLES):
            found[file.name] = file.read_text()
    return {
        key: hashlib.sha256(value if isinstance(value, bytes) else repr(value).encode()).hexdigest()
        for key, value in found.items()
    }


CONTENT_TABLES = ("data_domains", "data_drops", "data_lengths", "data_duplicates", "data_overlaps")
"""The data card's tables that name no file."""
LIMITS: dict[str, dict[str, Any]] = {
    "no limit": {},
    "bytes": {"max_bytes": 12000},
    "tokens": {"max_tokens": 2000},
    "both, equal texts only": {"max_bytes": 15000, "max_tokens": 3000, "duplicates": "exact"},
    "all are kept": {"duplicates": "keep"},
}


@pytest.mark.parametrize("limits", LIMITS)
def test_the_results_are_the_same_bytes_for_any_number_of_shards(tmp_path: pathlib.Path, limits: str) -> None:
    found = {
        layout: results(tmp_path / str(number), run(tmp_path / str(number), layout, **LIMITS[limits]), ids=True)
        for number, layout in enumerate((Layout(1), Layout(2), Layout(3, buckets=2), Layout(5)))
    }
    reference = found.pop(Layout(1))
    for layout, digests in found.items():
        assert digests == reference, layout


@pytest.mark.parametrize("limits", LIMITS)
def test_the_results_are_the_same_bytes_whatever_the_files_are_called_and_hold(
    tmp_path: pathlib.Path, limits: str
) -> None:
    layouts = [Layout(1), Layout(1, seed=1), Layout(3, seed=2)]
    reference, *others = (
        results(tmp_path / str(number), run(tmp_path / str(number), layout, **LIMITS[limits]), ids=False)
        for number, layout in enumerate(layouts)
    )
    for layout, digests in zip(layouts[1:], others, strict=True):
        assert digests == reference, layout


def digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def group_of(record: Record) -> str:
    """Return what the documentation says: the user's group in NFC, or else the text."""
    author = record.get("author")
    return f"text:{digest(record['text']).hex()}" if author is None else unicodedata.normalize("NFC", author)


def expected_splits(kept: list[Record], study: dict[str, Any]) -> dict[str, list[str]]:
    """Assign records to splits by the rule alone: groups in the order of their hashes, cut at the shares of text."""
    sizes = collections.Counter[str]()
    for record in kept:
        sizes[group_of(record)] += len(record["text"].encode())
    key = (0).to_bytes(8, "big")
    groups = sorted(sizes, key=lambda group: hashlib.blake2b(group.encode(), digest_size=16, key=key).digest())
    total, before, split_of = sum(sizes.values()), 0, {}
    shares = [(name, study["split"][name]) for name in ("probe", "test", "validation")]
    for group in groups:  # a group goes to the split that holds its middle
        middle, target, split_of[group] = before + sizes[group] / 2, 0.0, "train"
        for name, share in shares:
            target += share * total
            if middle <= target:
                split_of[group] = name
                break
        before += sizes[group]
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for record in sorted(kept, key=lambda record: digest(record["text"])):
        splits[split_of[group_of(record)]].append(record["text"])
    return splits


@pytest.mark.parametrize("layout", [Layout(1), Layout(4, seed=3)], ids=["one shard", "four shards of other files"])
def test_text_and_group_alone_decide_survivors_budget_and_split(tmp_path: pathlib.Path, layout: Layout) -> None:
    """The first 14,000 bytes in the order of digests are kept, equal texts once; their groups decide the splits."""
    graph = run(tmp_path, layout, duplicates="exact", max_bytes=14000)
    first, second = records()
    kept: list[Record] = []
    size = 0
    for record in sorted(first + second, key=lambda record: digest(record["text"])):
        if size < 14000 and (not kept or kept[-1]["text"] != record["text"]):
            kept.append(record)
        size += len(record["text"].encode())
    assert 20 < len(kept) < len({record["text"] for record in first + second})
    assert texts_of(tmp_path, graph) == expected_splits(kept, layout.settings())


def test_one_group_of_two_sources_and_two_spellings_is_in_one_split(tmp_path: pathlib.Path) -> None:
    assert NFC != NFD
    graph = run(tmp_path, Layout(3))
    split_of = {text: split for split, texts in texts_of(tmp_path, graph).items() for text in texts}
    splits_of_group = collections.defaultdict(set)
    first, second = records()
    for record in first + second:
        if "author" in record:
            splits_of_group[unicodedata.normalize("NFC", record["author"])].add(split_of[record["text"]])
    assert len(splits_of_group) == 4
    assert all(len(splits) == 1 for splits in splits_of_group.values()), splits_of_group


def test_the_training_text_ends_with_the_document_that_reaches_max_tokens(tmp_path: pathlib.Path) -> None:
    """The tokens that are packed are those of all documents in order, up to and with the one that crosses the limit."""
    whole = run(tmp_path / "whole", Layout(3))
    limited = run(tmp_path / "limited", Layout(3), max_tokens=2000)
    parts = [tmp_path / "whole" / part for part in whole.parts("encode", "mine")]
    tables = [pq.read_table(part / "train.documents.parquet") for part in parts]
    lengths = np.concatenate([table["stop"].to_numpy() - table["start"].to_numpy() for table in tables])
    ends = np.cumsum(lengths)
    kept = int(np.flatnonzero(ends >= 2000)[0]) + 1
    counts = json.loads((tmp_path / "limited" / limited.folder("pack", "mine") / "counts.json").read_text())["splits"][
        "train"
    ]
    assert counts["documents"] == kept < len(lengths)
    assert counts["tokens_in"] == ends[kept - 1] + kept
    row = (
        pd.read_csv(tmp_path / "limited" / limited.home / "tables" / "data_domains.csv").set_index("split").loc["train"]
    )
    assert (row["encoded"], row["tokens"], row["documents"]) == (kept, ends[kept - 1], len(lengths))
