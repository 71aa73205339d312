"""Test that assign_splits puts each group of a domain into one split in any sharding, and does not count duplicates."""

import json
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate import cli
from speciate.config.stage import SPLITS
from speciate.data.dedup.signatures import SIGNATURE_FILES, sign_documents
from speciate.data.dedup.tables import DUPLICATES
from speciate.data.documents import Document, write_documents
from speciate.data.shard import Shard
from speciate.data.splits.read import GroupSplits

ROWS = [Document(f"d{index}", "prose", f"g{index % 40}", "word " * (index % 7 + 1)) for index in range(400)]


def verb(
    folder: pathlib.Path,
    rows: list[Document],
    shards: int = 1,
    dropped: tuple[int, ...] = (),
) -> tuple[dict[str, str], dict[str, Any]]:
    """Sign and split `rows`, with row i in shard i mod shards; return the split of each group, and the counts."""
    shares = {"validation": 0.1, "test": 0.2, "probe": 0.1, "seed": 3}
    folder.mkdir(exist_ok=True)
    (folder / "spec.json").write_text(json.dumps({"domain": "prose", "split": shares, "shards": shards}))
    for index in range(shards):
        part = folder / str(Shard(index, shards))
        part.mkdir(exist_ok=True)
        write_documents(part / "documents.parquet", rows[index::shards])
        sign_documents(part / "documents.parquet", {name: part / name for name in SIGNATURE_FILES}, 3, None)
    duplicate = {
        "domain": "prose",
        "reason": "exact_duplicate",
        "cluster": 0,
        "of_domain": "x",
        "of_shard": 0,
        "of_row": 0,
    }
    table = [{**duplicate, "shard": row % shards, "row": row // shards} for row in dropped]
    pq.write_table(pa.Table.from_pylist(table, schema=DUPLICATES), folder / "duplicates.parquet")
    paths = ["--signed", folder, "--duplicates", folder / "duplicates.parquet", "--output-folder", folder / "out"]
    cli.main(["assign_splits", "--spec", str(folder / "spec.json"), *map(str, paths)])
    groups = GroupSplits(folder / "out" / "groups.npy", 3)
    assert groups.groups_G3.tolist() == sorted(groups.groups_G3.tolist())
    names = {row.group for index, row in enumerate(rows) if index not in dropped}
    assert len(names) == len(groups.groups_G3)
    counts = json.loads((folder / "out" / "counts.json").read_text())
    return {name: SPLITS[groups.split(name)] for name in names}, counts


@pytest.mark.parametrize("shards", [1, 3])
def test_every_group_is_in_one_split(tmp_path: pathlib.Path, shards: int) -> None:
    split_of, counts = verb(tmp_path, ROWS, shards)
    assert sorted(split_of) == sorted({row.group for row in ROWS})
    assert counts == {
        name: {
            "groups": sum(split == name for split in split_of.values()),
            "bytes": sum(len(row.text) for row in ROWS if split_of[row.group] == name),
        }
        for name in SPLITS
    }
    assert [counts[name]["groups"] for name in SPLITS] == [24, 4, 8, 4]


def test_shards_change_nothing(tmp_path: pathlib.Path) -> None:
    seen = set()
    for shards in (1, 2, 5):
        verb(tmp_path / str(shards), ROWS, shards)
        seen.add((tmp_path / str(shards) / "out" / "groups.npy").read_bytes())
    assert len(seen) == 1


def test_duplicates_count_for_nothing(tmp_path: pathlib.Path) -> None:
    dropped = tuple(index for index, row in enumerate(ROWS) if row.group in ("g3", "g8") or index % 11 == 0)
    split_of = verb(tmp_path / "dropped", ROWS, 3, dropped)
    assert split_of == verb(tmp_path / "never", [row for index, row in enumerate(ROWS) if index not in dropped])
    assert split_of != verb(tmp_path / "all", ROWS)
    assert "g3" not in split_of[0]


@pytest.mark.parametrize("rows", [ROWS[:3], []])
def test_too_few_groups_leave_nothing(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], rows: list[Document]
) -> None:
    with pytest.raises(SystemExit):
        verb(tmp_path, rows, 2)
    message = f"assign_splits: error: domain prose: a split would be empty: it has only {len(rows)} groups"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
