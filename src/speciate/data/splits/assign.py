"""Assign each group of documents to a split, before anything is packed.

Groups are ordered by a keyed hash, BLAKE2b(seed, group). The order is cut at the shares of text: probe, test,
validation, and the rest is train. Comparing the hash with thresholds would do for millions of groups. With the 81
templates or 100 articles of a small domain it leaves splits empty or three times too large. The cuts depend only on the
set of groups and their sizes, not on the order of documents or on shards. Adding or removing a group moves only groups
near a cut, so splits are stable as data grows.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from speciate.config.data import Split
from speciate.data.arrays.indexing import unique_rows

HELD_OUT = ("probe", "test", "validation")


def merge_groups(
    parts: Iterable[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the groups of a domain, sorted by key, uint64 (G, 2), and the bytes of text of each, int64 (G,).

    Args:
        parts: for each shard, the keys of its documents' groups, uint64 (D, 2), each `group_key` as two numbers, and
            the documents' bytes, int64 (D,).
    """
    keys_G2, sizes_G = np.zeros((0, 2), np.uint64), np.zeros(0, np.int64)
    for keys_D2, sizes_D in parts:
        keys_N2 = np.concatenate([keys_G2, keys_D2])
        firsts, group_N = unique_rows(keys_N2)
        sizes_N = np.concatenate([sizes_G, sizes_D])
        keys_G2, sizes_G = keys_N2[firsts], np.zeros(len(firsts), np.int64)
        np.add.at(sizes_G, group_N, sizes_N)
    return keys_G2, sizes_G


def assign_groups(sizes_G: npt.NDArray[np.int64], split: Split, domain: str) -> dict[str, slice]:
    """Return the groups of each split, as a slice of the ordered groups.

    Each held-out split takes the next groups in the order until the cumulative share of text is met as closely as whole
    groups allow. It takes at least one group, and leaves at least one to each later split and to train.

    Args:
        sizes_G: bytes of each group, in the order of the groups.
        split: the share of each held-out split.
        domain: the domain, for messages.

    Raises:
        ValueError: there are fewer groups than splits; names the domain.
    """
    count = len(sizes_G)
    if count <= len(HELD_OUT):
        raise ValueError(f"domain {domain}: a split would be empty: it has only {count} groups of documents")
    middles_G = np.cumsum(sizes_G) - sizes_G + sizes_G / 2  # a group goes to the split that has most of it
    total = int(sizes_G.sum())
    shares = split.model_dump()
    groups_of: dict[str, slice] = {}
    start, target = 0, 0.0
    for later, name in zip(range(len(HELD_OUT), 0, -1), HELD_OUT, strict=True):
        target += float(shares[name]) * total
        target_stop = int(np.searchsorted(middles_G, target, side="right"))
        stop = min(max(target_stop, start + 1), count - later)
        groups_of[name] = slice(start, stop)
        start = stop
    return groups_of | {"train": slice(start, count)}
