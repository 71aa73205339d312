"""Read how a domain is split: the split of each group, and the rows that are dropped as duplicates."""

import pathlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.config.stage import SPLITS
from speciate.data.arrays.npy import read_array
from speciate.data.parquet_errors import explain_parquet_errors
from speciate.data.shard import Shard
from speciate.data.splits.group_key import group_key


class GroupSplits:
    """The groups of a domain and their splits, uint64 (G, 3): the key as two numbers, sorted, and the split's index."""

    def __init__(self, file: pathlib.Path, seed: int) -> None:
        """Open the file that `assign_splits` wrote for `seed`. Raises ValueError if it is not such a file."""
        self.file = file
        self.seed = seed
        self.groups_G3: npt.NDArray[np.uint64] = read_array(file, np.uint64, 2)
        if self.groups_G3.shape[1] != 3 or (self.groups_G3[:, 2] >= len(SPLITS)).any():
            raise ValueError(f"{file}: does not hold groups")
        self._firsts_G = np.ascontiguousarray(self.groups_G3[:, 0])

    def split(self, group: str) -> int:
        """Return the index of the split of `group`. Raises ValueError if the file does not have the group."""
        first, second = np.frombuffer(group_key(group, self.seed), ">u8").astype(np.uint64)
        start, stop = (np.searchsorted(self._firsts_G, first, side=side) for side in ("left", "right"))
        for key, split in self.groups_G3[start:stop, 1:]:
            if key == second:
                return int(split)
        raise ValueError(f"{self.file}: does not have group {group}")


def read_dropped_rows(file: pathlib.Path, domain: str, shard: Shard, count: int) -> npt.NDArray[np.int64]:
    """Read which rows of one shard's documents are dropped as duplicates.

    Args:
        file: duplicates.parquet, from `cluster`.
        domain: the domain.
        shard: its shard.
        count: the shard's number of documents.

    Raises:
        ValueError: the file is missing or broken, or it belongs to other documents; names the file.
    """
    of_shard = (pc.field("domain") == domain) & (pc.field("shard") == shard.index)
    with explain_parquet_errors(f"{file}: is not a file of duplicates"):
        if missing := [name for name in ("domain", "shard", "row") if name not in pq.read_schema(file).names]:
            raise ValueError(f"{file}: is not a file of duplicates: it has no column {missing[0]}")
        table = pq.read_table(file, columns=["row"], filters=of_shard, page_checksum_verification=True)
    if table.schema.field("row").type != pa.int64():
        raise ValueError(f"{file}: is not a file of duplicates: its rows are of type {table.schema.field('row').type}")
    rows: npt.NDArray[np.int64] = table.column("row").to_numpy()
    if len(rows) and not 0 <= rows.min() <= rows.max() < count:
        raise ValueError(f"{file}: belongs to other documents: domain {domain}, shard {shard} has {count} documents")
    return rows
