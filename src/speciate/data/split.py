"""Which split each document belongs to, decided by its group, before anything is packed.

Groups are ordered by a keyed hash, BLAKE2b(seed, group), and the order is cut at the shares of text: probe, test,
validation, and the rest is train. Plain hashing against thresholds would do for millions of groups; with the 81
templates or 100 articles of a small domain it leaves splits empty or three times too large. The cut depends on the
set of groups and their sizes only, never on the order of documents; a group that comes or goes moves only groups near
a cut, so splits stay put as data grows.
"""

import hashlib
import pathlib
from collections import Counter

import pyarrow.compute as pc

from speciate.data.documents import read_tables
from speciate.spec import Split

HELD_OUT = ("probe", "test", "validation")


def group_bytes(documents: pathlib.Path) -> Counter[str]:
    """Bytes of text in each group of a documents file. Raises ValueError as `read_tables` does."""
    sizes: Counter[str] = Counter()
    for table in read_tables(documents, ["group", "text"]):
        lengths = pc.binary_length(table.column("text")).to_pylist()
        for group, length in zip(table.column("group").to_pylist(), lengths, strict=True):
            sizes[group] += length
    return sizes


def position(group: str, seed: int) -> bytes:
    """Where `group` stands in the order: uniform over the seeds, the same on every machine."""
    return hashlib.blake2b(group.encode(), digest_size=16, key=seed.to_bytes(8, "big")).digest()


def assign(sizes: Counter[str], split: Split, domain: str) -> dict[str, str]:
    """The split of every group.

    Each held-out split takes the next groups in the hash order until the shares of text so far are met as nearly as
    whole groups allow; it takes at least one, and leaves at least one to each later split and to train.

    Args:
        sizes: bytes of each group.
        split: shares and seed.
        domain: for messages.

    Raises:
        ValueError: fewer groups than splits; names the domain.
    """
    if len(sizes) <= len(HELD_OUT):
        raise ValueError(f"domain {domain}: a split would be empty: there are only {len(sizes)} groups of documents")
    order = sorted(sizes, key=lambda group: (position(group, split.seed), group))
    total = sum(sizes.values())
    chosen: dict[str, str] = {}
    taken, target = 0, 0.0
    for later, name in zip(range(len(HELD_OUT), 0, -1), HELD_OUT, strict=True):
        target += float(getattr(split, name)) * total
        first = True
        while len(order) > later and (first or taken + sizes[order[0]] / 2 <= target):
            taken += sizes[order[0]]
            chosen[order.pop(0)] = name
            first = False
    return chosen | dict.fromkeys(order, "train")
