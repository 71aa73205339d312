"""How domains' blocks are put in one order: in turns, so that every beginning of a mixture has all its domains.

    key of block i of the n_d blocks of domain d:  (i + 1/2) / n_d;   blocks by ascending key, of equal keys by domain

Up to key x domain d has n_d x blocks, give or take 1/2; so among the first k blocks its number is within (D + 1) / 2 of
its share of k, and for equal parts the domains simply alternate.

D domains, N blocks of the mixture.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.npy import chunks, release_pages
from speciate.data.arrays.scratch import PORTION, Scratch
from speciate.data.permutation import long_permutation

Rows = npt.NDArray[np.int64]


def refuse_empty(num_blocks: Mapping[str, int], split: str = "train") -> None:
    """Raises a ValueError that names the first domain without a block in `split`."""
    empty = [domain for domain, blocks in num_blocks.items() if not blocks]
    if empty:
        found = ", ".join(f"{domain} {blocks}" for domain, blocks in num_blocks.items())
        raise ValueError(f"domains.{empty[0]}: too small for one block of the {split} split (blocks: {found})")


def shuffled(domain: str, blocks: int, seed: int, *epoch: int) -> Rows:
    """A domain's blocks in an order that no other domain has a part in, and every epoch its own: int64 (blocks,)."""
    return long_permutation(blocks, "mixture", seed, domain, *epoch)


def end_to_end(epochs: Sequence[Rows], count: int) -> Rows:
    """The first `count` of several arrays, one after the other."""
    if len(epochs) == 1:
        return epochs[0][:count]
    found = Scratch(np.int64)
    for epoch in epochs:
        for _, rows in chunks(epoch[: count - len(found)], PORTION):
            found.append(rows)
    return found.mapped((count,))


def in_turns(rows: Sequence[Rows]) -> npt.NDArray[np.int32]:
    """The blocks `rows` of each domain as one mixture, int32 (N, 2): the domain's index, and the row in its pack.

    Made portion by portion, of blocks whose keys are in one range; the array is on disk (data/arrays/scratch.py).
    """
    total = sum(map(len, rows))
    found = Scratch(np.int32)
    steps = -(-total // PORTION)
    starts = [0] * len(rows)
    for step in range(1, steps + 1):
        stops = [_below(step / steps, len(one)) if step < steps else len(one) for one in rows]
        places = [np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)]
        domain_N = np.repeat(np.arange(len(rows)), [len(each) for each in places])
        key_N = np.concatenate([_keys(each, len(one)) for each, one in zip(places, rows, strict=True)])
        row_N = np.concatenate([one[start:stop] for one, start, stop in zip(rows, starts, stops, strict=True)])
        for one in rows:
            release_pages(one)
        order_N = np.lexsort((domain_N, key_N))
        found.append(np.stack((domain_N, row_N), axis=1)[order_N].astype(np.int32).reshape(-1))
        starts = stops
    return found.mapped((total, 2))


def _keys(place_N: Rows, count: int) -> npt.NDArray[np.float64]:
    keys: npt.NDArray[np.float64] = (place_N + 0.5) / max(1, count)
    return keys


def _below(key: float, count: int) -> int:
    """How many of `count` blocks have a smaller key."""
    first = min(max(0, int(key * count) - 2), count)  # rounding moves it by less
    return first + int(np.searchsorted(_keys(np.arange(first, min(first + 4, count)), count), key))


def equal_parts(num_blocks: Mapping[str, int], seed: int, warn_ratio: float) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Every domain's blocks, shuffled and cut to the number that the smallest has; and a warning above `warn_ratio`.

    Raises:
        ValueError: a domain has no block; names it.
    """
    refuse_empty(num_blocks)
    smallest, largest = min(num_blocks, key=num_blocks.__getitem__), max(num_blocks, key=num_blocks.__getitem__)
    kept, most = num_blocks[smallest], num_blocks[largest]
    warnings = []
    if most > warn_ratio * kept:
        warnings.append(
            f"{largest} has {most / kept:.1f} times the tokens of {smallest} ({most} blocks, {kept} blocks); "
            f"every domain is cut to {kept} blocks"
        )
    return in_turns([shuffled(domain, blocks, seed)[:kept] for domain, blocks in num_blocks.items()]), warnings
