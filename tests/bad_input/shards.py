"""Define shards that are missing, damaged, or of another domain, in the stages before there are tokens."""

import numpy as np
import pyarrow as pa
from tests.bad_input.case import Case, Place, cut, rows, save
from tests.bad_input.spoiled import DATA, Harm, flipped, nothing, of, settings, stage, swapped

DOCUMENTS = "sort/code-*/0-of-2/documents.parquet"
CODE = "sign/code-*/0-of-2"


def signed_again(place: Place) -> None:
    """Write signatures of two documents with the same id."""
    file = place.file(f"{DATA}/sign/code-*/0-of-2/digests.npy")
    digests = np.load(file)
    digests[1, 4] = digests[0, 4]
    save(file, digests)


def few(place: Place) -> None:
    """Make a domain of three groups."""
    for file in ("digests", "bytes", "ends"):
        path = place.file(f"{DATA}/sign/prose-*/0-of-1/{file}.npy")
        save(path, np.load(path)[:3])
    path = place.file(f"{DATA}/sign/prose-*/0-of-1/bands.npy")
    save(path, np.load(path)[:, :3])


def shards(wrong: str, says: str, verb: str, harm: Harm, part: str = "code", **arguments: str) -> Case:
    """Make a case of the stages before there are tokens."""
    return Case("Shards", wrong, stage(verb, harm, part, **arguments), says)


CASES = [
    shards(
        "a shard that there is not",
        "--shard: '2-of-2' is not a shard; the first of eight is 0-of-8",
        "clean",
        nothing,
        shard="2-of-2",
    ),
    shards(
        "a shard of another number of shards",
        "--shard: 0-of-3 does not fit domain code, which has 2 shards",
        "write_splits",
        nothing,
        shard="0-of-3",
    ),
    shards(
        "documents cut off",
        "results/data/sort/code-KEY/0-of-2/documents.parquet: is not a documents file: WHY",
        "sign",
        of(DOCUMENTS, cut),
    ),
    shards(
        "documents with a byte changed on the disk",
        "results/data/sort/code-KEY/0-of-2/documents.parquet: is not a documents file: WHY",
        "sign",
        of(DOCUMENTS, flipped),
    ),
    shards(
        "a file of another stage",
        "results/data/sort/code-KEY/0-of-2/documents.parquet: has columns ['reason', 'filter', 'note', 'id', "
        "'characters', 'text'], not ['id', 'domain', 'group', 'text']",
        "sign",
        swapped(DOCUMENTS, "clean/code-*/0-of-2/dropped.parquet"),
    ),
    shards(
        "documents whose text is null",
        "results/data/sort/code-KEY/0-of-2/documents.parquet: has columns that are not text or may be null",
        "sign",
        of(DOCUMENTS, lambda file: rows(file, lambda table: table.set_column(3, "text", pa.nulls(len(table), "str")))),
    ),
    shards(
        "cleaned documents cut off",
        "results/data/clean/code-KEY/1-of-2/documents.parquet: is not a documents file: WHY",
        "sort",
        of("clean/code-*/1-of-2/documents.parquet", cut),
    ),
    shards(
        "counts of cleaning without the parts of the file",
        "results/data/clean/code-KEY/1-of-2/counts.json: does not hold the counts of cleaning: KeyError('parts')",
        "sort",
        of("clean/code-*/1-of-2/counts.json", settings(lambda s: s.pop("parts"))),
    ),
    shards(
        "documents of another number of row groups",
        "results/data/clean/code-KEY/0-of-2/documents.parquet: has 2 row groups, not 4",
        "sort",
        of("clean/code-*/0-of-2/counts.json", settings(lambda s: s["parts"][0].update(row_groups=4))),
    ),
    shards(
        "the inventory of another source",
        "source code: results/data/fetch/code-KEY/0-of-2/archive is the inventory of source prose",
        "clean",
        swapped("fetch/code-*/0-of-2/archive", "fetch/prose-*/*/archive"),
    ),
    shards(
        "the inventory cut off",
        "results/data/fetch/code-KEY/0-of-2/archive: is not a spec: WHY",
        "clean",
        of("fetch/code-*/0-of-2/archive", cut),
    ),
    shards(
        "a signature cut off",
        "results/data/sign/code-KEY/0-of-2/digests.npy: is truncated or not an array: WHY",
        "cluster",
        of(f"{CODE}/digests.npy", cut),
    ),
    shards(
        "signatures of another shard",
        "results/data/sign/code-KEY/0-of-2: its files belong to different documents: arrays of shapes ((15, 5), (14,), "
        "(15,), (N,))",
        "cluster",
        of(f"{CODE}/bands.npy", lambda f: save(f, np.load(f)[:, 1:])),
    ),
    shards(
        "signatures of another type",
        "results/data/sign/code-KEY/0-of-2/bytes.npy: holds float64 of shape (15,), not 1-dimensional int64",
        "cluster",
        of(f"{CODE}/bytes.npy", lambda f: save(f, np.load(f) / 2)),
    ),
    shards(
        "a shard's folder is missing",
        "results/data/sign/code-KEY/1-of-2/digests.npy: there is no such file",
        "cluster",
        of("sign/code-*/1-of-2", lambda f: f.rename(f.parent / "x")),
    ),
    shards(
        "pairs of other documents",
        "results/data/bucket/code-KEY/0-of-1/pairs.npy: does not hold pairs of these 24 documents",
        "cluster",
        of("bucket/code-*/*/pairs.npy", lambda f: save(f, np.array([[0, 99]]))),
    ),
    shards(
        "two documents of one id",
        "domain code: source WHY: two records have the id WHY",
        "cluster",
        signed_again,
    ),
    shards(
        "fewer groups of documents than splits",
        "domain prose: a split would be empty: it has only 3 groups of documents",
        "assign_splits",
        few,
        "prose",
    ),
    shards(
        "duplicates cut off",
        "results/data/cluster/code-KEY/duplicates.parquet: is not a file of duplicates: WHY",
        "assign_splits",
        of("cluster/code-*/duplicates.parquet", cut),
    ),
    shards(
        "groups of another domain",
        "results/data/assign_splits/code-KEY/groups.npy: does not have group text:WHY",
        "write_splits",
        swapped("assign_splits/code-*/groups.npy", "assign_splits/prose-*/groups.npy"),
    ),
    shards(
        "groups cut off",
        "results/data/assign_splits/code-KEY/groups.npy: is truncated or not an array: WHY",
        "write_splits",
        of("assign_splits/code-*/groups.npy", cut),
    ),
    shards(
        "a stage's spec cut off",
        "results/data/sign/code-KEY/spec.json: is not a spec: WHY",
        "sign",
        of("sign/code-*/spec.json", cut),
    ),
]
