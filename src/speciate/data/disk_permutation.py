"""Seeded orders that are too long for memory: the orders of `data/permutation.py`, sorted part by part on disk."""

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.scratch import CHUNK_ROWS, PARTITION_ROWS, Partitions, ScratchArray
from speciate.data.permutation import permutation, random_words


def disk_permutation(num: int, *purpose: str | int) -> npt.NDArray[np.int64]:
    """Return the same order as `permutation`, int64 (num,); a long one is sorted and kept on disk.

    Orders of more than `PARTITION_ROWS` are sorted partition by partition and returned memory-mapped
    (`data/arrays/scratch.py`).
    """
    if num <= PARTITION_ROWS:
        return permutation(num, *purpose)
    words = random_words(*purpose)
    partitions = Partitions(num, [("word", np.uint64), ("index", np.int64)])
    for start in range(0, num, CHUNK_ROWS):
        rows = np.empty(min(CHUNK_ROWS, num - start), partitions.dtype)
        rows["word"], rows["index"] = words.random_raw(len(rows)), np.arange(start, start + len(rows))
        partitions.add(partitions.partitions_by_hash(rows["word"]), rows)
    order = ScratchArray(np.int64)
    for rows in partitions:
        order.append(rows["index"][np.argsort(rows["word"], kind="stable")])
    return order.memory_map((num,))
