"""Interleave the domains' blocks, so that every prefix of a mixture has all domains in proportion.

    key of block i of the n_d blocks of domain d:  (i + 1/2) / n_d;   blocks sorted by key, ties by domain

Up to key x, domain d has n_d x blocks, within 1/2. So among the first k blocks, a domain's number is within (D + 1) / 2
of its share of k. With equal numbers of blocks the domains simply alternate.

D domains, N blocks of the mixture.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from speciate.data.arrays.npy import chunks, release_pages
from speciate.data.arrays.scratch import CHUNK_ROWS, ScratchArray
from speciate.data.disk_permutation import disk_permutation

Rows = npt.NDArray[np.int64]


def require_blocks(num_blocks: Mapping[str, int], split: str = "train") -> None:
    """Raise a ValueError that names the first domain without a block in `split`."""
    empty = [domain for domain, blocks in num_blocks.items() if not blocks]
    if empty:
        blocks_of_domains = ", ".join(f"{domain} {blocks}" for domain, blocks in num_blocks.items())
        raise ValueError(
            f"domains.{empty[0]}: too small for one block of the {split} split (blocks: {blocks_of_domains})"
        )


def shuffled_blocks(domain: str, blocks: int, seed: int, *epoch: int) -> Rows:
    """Shuffle a domain's blocks independently of other domains and epochs; returns int64 (blocks,)."""
    return disk_permutation(blocks, "mixture", seed, domain, *epoch)


def concatenate_epochs(epochs: Sequence[Rows], count: int) -> Rows:
    """Return the first `count` rows of the concatenated epochs."""
    if len(epochs) == 1:
        return epochs[0][:count]
    order = ScratchArray(np.int64)
    for epoch in epochs:
        for _, rows in chunks(epoch[: count - len(order)], CHUNK_ROWS):
            order.append(rows)
    return order.memory_map((count,))


def interleave(rows: Sequence[Rows]) -> npt.NDArray[np.int32]:
    """Interleave the blocks `rows` of each domain into one mixture, int32 (N, 2): domain index, row in its pack.

    The mixture is made in chunks of blocks whose keys lie in one range; the array is on disk (data/arrays/scratch.py).
    """
    total = sum(map(len, rows))
    mixture = ScratchArray(np.int32)
    steps = -(-total // CHUNK_ROWS)
    starts = [0] * len(rows)
    for step in range(1, steps + 1):
        stops = [
            _count_below(step / steps, len(domain_rows)) if step < steps else len(domain_rows) for domain_rows in rows
        ]
        indices = [np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)]
        domain_N = np.repeat(np.arange(len(rows)), [len(domain_indices) for domain_indices in indices])
        key_N = np.concatenate(
            [_sort_keys(chosen, len(domain_rows)) for chosen, domain_rows in zip(indices, rows, strict=True)]
        )
        row_N = np.concatenate(
            [domain_rows[start:stop] for domain_rows, start, stop in zip(rows, starts, stops, strict=True)]
        )
        for domain_rows in rows:
            release_pages(domain_rows)
        order_N = np.lexsort((domain_N, key_N))
        mixture.append(np.stack((domain_N, row_N), axis=1)[order_N].astype(np.int32).reshape(-1))
        starts = stops
    return mixture.memory_map((total, 2))


def _sort_keys(index_N: Rows, count: int) -> npt.NDArray[np.float64]:
    keys: npt.NDArray[np.float64] = (index_N + 0.5) / max(1, count)
    return keys


def _count_below(key: float, count: int) -> int:
    """Return how many of `count` blocks have a key below `key`."""
    first = min(max(0, int(key * count) - 2), count)  # rounding shifts the key by less than that
    return first + int(np.searchsorted(_sort_keys(np.arange(first, min(first + 4, count)), count), key))


def equal_shares(
    num_blocks: Mapping[str, int], seed: int, warn_ratio: float
) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Shuffle every domain's blocks, truncate to the smallest domain and interleave; warn above `warn_ratio`.

    Raises:
        ValueError: a domain has no block; names the domain.
    """
    require_blocks(num_blocks)
    smallest, largest = min(num_blocks, key=num_blocks.__getitem__), max(num_blocks, key=num_blocks.__getitem__)
    kept, most = num_blocks[smallest], num_blocks[largest]
    warnings = []
    if most > warn_ratio * kept:
        warnings.append(
            f"{largest} has {most / kept:.1f} times the tokens of {smallest} ({most} blocks, {kept} blocks); "
            f"every domain is cut to {kept} blocks"
        )
    return interleave([shuffled_blocks(domain, blocks, seed)[:kept] for domain, blocks in num_blocks.items()]), warnings
