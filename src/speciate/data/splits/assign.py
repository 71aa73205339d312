"""Which split each group of documents belongs to, decided before anything is packed.

Groups are ordered by a keyed hash, BLAKE2b(seed, group), and the order is cut at the shares of text: probe, test,
validation, and the rest is train. Plain hashing against thresholds would do for millions of groups; with the 81
templates or 100 articles of a small domain it leaves splits empty or three times too large. The cut depends on the
set of groups and their sizes only, never on the order of documents or on shards; a group that comes or goes moves only
groups near a cut, so splits stay put as data grows.
"""

import hashlib
import pathlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.config.data import Split
from speciate.config.stage_specs import SPLITS
from speciate.data.arrays.npy import distinct, read_array
from speciate.data.documents import Shard, damage

HELD_OUT = ("probe", "test", "validation")


def position(group: str, seed: int) -> bytes:
    """Where `group` stands in the order: uniform over the seeds, the same on every machine."""
    return hashlib.blake2b(group.encode(), digest_size=16, key=seed.to_bytes(8, "big")).digest()


def gather(
    parts: Iterable[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The groups of a domain in their order, uint64 (G, 2), and the bytes of text of each, int64 (G,).

    Args:
        parts: for each shard the positions of its documents' groups, uint64 (D, 2): `position` as two numbers; and the
            documents' bytes, int64 (D,).
    """
    order_G2, sizes_G = np.zeros((0, 2), np.uint64), np.zeros(0, np.int64)
    for order_D2, sizes_D in parts:
        both_N2 = np.concatenate([order_G2, order_D2])
        firsts, places_N = distinct(both_N2)
        sizes_N = np.concatenate([sizes_G, sizes_D])
        order_G2, sizes_G = both_N2[firsts], np.zeros(len(firsts), np.int64)
        np.add.at(sizes_G, places_N, sizes_N)
    return order_G2, sizes_G


def assign(sizes_G: npt.NDArray[np.int64], split: Split, domain: str) -> dict[str, slice]:
    """The groups of each split: a run of the order of groups.

    Each held-out split takes the next groups in the order until the shares of text so far are met as nearly as whole
    groups allow; it takes at least one, and leaves at least one to each later split and to train.

    Args:
        sizes_G: bytes of each group, in the order of the groups.
        split: shares.
        domain: for messages.

    Raises:
        ValueError: fewer groups than splits; names the domain.
    """
    count = len(sizes_G)
    if count <= len(HELD_OUT):
        raise ValueError(f"domain {domain}: a split would be empty: there are only {count} groups of documents")
    middles_G = np.cumsum(sizes_G) - sizes_G + sizes_G / 2  # a group goes where most of it lies
    total = int(sizes_G.sum())
    found: dict[str, slice] = {}
    start, target = 0, 0.0
    for later, name in zip(range(len(HELD_OUT), 0, -1), HELD_OUT, strict=True):
        target += float(getattr(split, name)) * total
        met = int(np.searchsorted(middles_G, target, side="right"))
        stop = min(max(met, start + 1), count - later)
        found[name] = slice(start, stop)
        start = stop
    return found | {"train": slice(start, count)}


class Groups:
    """The file of a domain's groups, uint64 (G, 3): position in two numbers, by which it is sorted, and split."""

    def __init__(self, file: pathlib.Path, seed: int) -> None:
        """From what the stage `split` wrote for `seed`. Raises ValueError where it is no such file."""
        self.file = file
        self.seed = seed
        self.groups_G3: npt.NDArray[np.uint64] = read_array(file, np.uint64, 2)
        if self.groups_G3.shape[1] != 3 or (self.groups_G3[:, 2] >= len(SPLITS)).any():
            raise ValueError(f"{file}: holds no groups")
        self._firsts_G = np.ascontiguousarray(self.groups_G3[:, 0])

    def split(self, group: str) -> int:
        """The number of the split that `group` is in. Raises ValueError where the file does not know the group."""
        first, second = np.frombuffer(position(group, self.seed), ">u8").astype(np.uint64)
        start, stop = (np.searchsorted(self._firsts_G, first, side=side) for side in ("left", "right"))
        for known, split in self.groups_G3[start:stop, 1:]:
            if known == second:
                return int(split)
        raise ValueError(f"{self.file}: does not know group {group}")


def dropped_rows(file: pathlib.Path, domain: str, shard: Shard, count: int) -> npt.NDArray[np.int64]:
    """The rows of one shard's documents that are dropped as duplicates.

    Args:
        file: what `cluster` wrote.
        domain: the domain.
        shard: its shard.
        count: how many documents that has.

    Raises:
        ValueError: no such file, or it is of other documents; names the file.
    """
    here = (pc.field("domain") == domain) & (pc.field("shard") == shard.index)
    with damage(f"{file}: is no file of duplicates"):
        if missing := [name for name in ("domain", "shard", "row") if name not in pq.read_schema(file).names]:
            raise ValueError(f"{file}: is no file of duplicates: has no column {missing[0]}")
        table = pq.read_table(file, columns=["row"], filters=here, page_checksum_verification=True)
    if table.schema.field("row").type != pa.int64():
        raise ValueError(f"{file}: is no file of duplicates: its rows are {table.schema.field('row').type}")
    rows: npt.NDArray[np.int64] = table.column("row").to_numpy()
    if len(rows) and not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(f"{file}: is of other documents: domain {domain}, shard {shard} has {count} documents")
    return rows
