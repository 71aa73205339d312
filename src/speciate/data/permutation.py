"""Seeded permutations that never change: the only source of shuffling in the data stages and in training.

A permutation is the stable argsort of raw 64-bit words of Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"). The key of Philox is a hash of the permutation's purpose. Raw words are used because numpy guarantees
them across versions; it does not guarantee `Generator.permutation`.
"""

import hashlib

import numpy as np
import numpy.typing as npt


def permutation(num: int, *purpose: str | int) -> npt.NDArray[np.int64]:
    """Return a permutation of 0 .. num-1, int64 (num,), that depends only on `num` and `purpose`.

    Args:
        num: number of items; may be 0.
        purpose: the name of this permutation, such as ("train", seed, epoch); other names give independent ones.
    """
    return np.argsort(random_words(*purpose).random_raw(num), kind="stable")


def random_words(*purpose: str | int) -> np.random.Philox:
    """Return the generator whose raw words order the items of `purpose`."""
    key = hashlib.sha256("\x00".join(f"{type(part).__name__}:{part}" for part in purpose).encode()).digest()[:16]
    return np.random.Philox(key=np.frombuffer(key, "<u8"))
