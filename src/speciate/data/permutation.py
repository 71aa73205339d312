"""Seeded orders that stay the same for ever: the one source of shuffling in the data stages and in training.

An order is the stable argsort of raw 64-bit words of Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"), whose key is a hash of what the order is for. The raw words are taken because numpy promises them
across versions, while it does not promise `Generator.permutation`.
"""

import hashlib

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.scratch import PART, PORTION, Parts, Scratch


def permutation(num: int, *purpose: str | int) -> npt.NDArray[np.int64]:
    """A permutation of 0 .. num-1, int64 (num,), that depends only on `num` and `purpose`.

    Args:
        num: how many; may be 0.
        purpose: what names this order, such as ("train", seed, epoch); other purposes give independent orders.
    """
    return np.argsort(_words(*purpose).random_raw(num), kind="stable")


def long_permutation(num: int, *purpose: str | int) -> npt.NDArray[np.int64]:
    """What `permutation` gives; where it is long, sorted part by part, and an array on disk (data/arrays/scratch.py)."""
    if num <= PART:
        return permutation(num, *purpose)
    words = _words(*purpose)
    parts = Parts(num, [("word", np.uint64), ("place", np.int64)])
    for start in range(0, num, PORTION):
        rows = np.empty(min(PORTION, num - start), parts.dtype)
        rows["word"], rows["place"] = words.random_raw(len(rows)), np.arange(start, start + len(rows))
        parts.put(parts.by_hash(rows["word"]), rows)
    found = Scratch(np.int64)
    for rows in parts:
        found.append(rows["place"][np.argsort(rows["word"], kind="stable")])
    return found.mapped((num,))


def _words(*purpose: str | int) -> np.random.Philox:
    """The random words of a purpose."""
    key = hashlib.sha256("\x00".join(f"{type(part).__name__}:{part}" for part in purpose).encode()).digest()[:16]
    return np.random.Philox(key=np.frombuffer(key, "<u8"))
