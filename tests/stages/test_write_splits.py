"""Test that write_splits writes a shard's documents, without duplicates, to the file of their group's split."""

import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate import cli
from speciate.config.stage import SPLITS
from speciate.data.dedup.tables import DUPLICATES
from speciate.data.documents import Document, read_documents, write_documents
from speciate.data.splits.group_key import group_key

ROWS = [Document(f"d{index}", "prose", f"g{index % 40}", "wörd " * (index % 7 + 1)) for index in range(400)]
LOST = {"domain": "prose", "reason": "exact_duplicate", "cluster": 0, "of_domain": "x", "of_shard": 0, "of_row": 0}


def number(group: str) -> int:
    """Return the index of the split to which these tests assign a group."""
    return sum(group.encode()) % 4


def verb(
    folder: pathlib.Path,
    rows: list[Document],
    shard: str = "1-of-2",
    seed: int = 3,
    dropped: tuple[tuple[int, int], ...] = (),
) -> dict[str, list[Document]]:
    """Run the stage on one shard; `dropped` holds (shard, row) pairs."""
    (folder / "spec.json").write_text(json.dumps({"domain": "prose", "shards": 2, "seed": seed}))
    write_documents(folder / "documents.parquet", rows)
    table = [{**LOST, "shard": index, "row": row} for index, row in dropped]
    pq.write_table(pa.Table.from_pylist(table, schema=DUPLICATES), folder / "duplicates.parquet")
    keys = sorted((group_key(f"g{index}", 3), number(f"g{index}")) for index in range(40))
    groups = [[int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big"), split] for key, split in keys]
    np.save(folder / "groups.npy", np.array(groups, np.uint64))
    files = [f"--{name}={folder / name}.{end}" for name, end in (("documents", "parquet"), ("duplicates", "parquet"))]
    files += [f"--groups={folder / 'groups.npy'}", f"--output-folder={folder / 'out'}", f"--shard={shard}"]
    cli.main(["write_splits", f"--spec={folder / 'spec.json'}", *files])
    return {split: list(read_documents(folder / "out" / f"{split}.parquet")) for split in SPLITS}


def test_documents_are_where_their_groups_are(tmp_path: pathlib.Path) -> None:
    by_split = verb(tmp_path, ROWS, dropped=((1, 0), (1, 7), (0, 2), (1, 399)))
    left = [row for index, row in enumerate(ROWS) if index not in (0, 7, 399)]
    assert by_split == {
        split: [row for row in left if number(row.group) == index] for index, split in enumerate(SPLITS)
    }  # in their original order
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == {
        split: {"documents": len(rows), "bytes": sum(len(row.text.encode()) for row in rows)}
        for split, rows in by_split.items()
    }
    assert all(by_split.values())


def test_twice_gives_the_same_bytes(tmp_path: pathlib.Path) -> None:
    seen = []
    for _ in range(2):
        verb(tmp_path, ROWS)
        seen.append({file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()})
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == ["counts.json", *sorted(f"{name}.parquet" for name in SPLITS)]


def test_a_shard_may_be_empty(tmp_path: pathlib.Path) -> None:
    assert verb(tmp_path, []) == {split: [] for split in SPLITS}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shard": "1-of-3"}, "--shard: 1-of-3 does not fit domain prose, which has 2 shards"),
        ({"shard": "2-of-2"}, "--shard: '2-of-2' is not a shard"),
        ({"seed": 4}, "groups.npy: does not have group g0"),
        (
            {"dropped": ((1, 400),)},
            "duplicates.parquet: belongs to other documents: domain prose, shard 1-of-2 has 400",
        ),
    ],
)
def test_what_does_not_belong_together_leaves_nothing(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        verb(tmp_path, ROWS, **changed)  # type: ignore[arg-type]
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*"))
