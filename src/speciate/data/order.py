"""Seeded orders that stay the same for ever: the one source of shuffling in the data stages and in training.

An order is the stable argsort of raw 64-bit words of Philox-4x64 (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"), whose key is a hash of what the order is for. The raw words are taken because numpy promises them
across versions, while it does not promise `Generator.permutation`.
"""

import hashlib

import numpy as np
import numpy.typing as npt


def permutation(num: int, *purpose: str | int) -> npt.NDArray[np.int64]:
    """A permutation of 0 .. num-1, int64 (num,), that depends only on `num` and `purpose`.

    Args:
        num: how many; may be 0.
        purpose: what names this order, such as ("train", seed, epoch); other purposes give independent orders.
    """
    words = hashlib.sha256("\x00".join(f"{type(part).__name__}:{part}" for part in purpose).encode()).digest()[:16]
    raw = np.random.Philox(key=np.frombuffer(words, "<u8")).random_raw(num)
    return np.argsort(raw, kind="stable")
