"""How domains' blocks are put in one order: in turns, so that every beginning of a mixture has all its domains.

    key of block i of the n_d blocks of domain d:  (i + 1/2) / n_d;   blocks by ascending key, of equal keys by domain

Up to key x domain d has n_d x blocks, give or take 1/2; so among the first k blocks its number is within (D + 1) / 2 of
its share of k, and for equal parts the domains simply alternate.

D domains, N blocks of the mixture.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from speciate.data.order import permutation

Rows = npt.NDArray[np.int64]


def refuse_empty(num_blocks: Mapping[str, int], split: str = "train") -> None:
    """Raises a ValueError that names the first domain without a block in `split`."""
    empty = [domain for domain, blocks in num_blocks.items() if not blocks]
    if empty:
        found = ", ".join(f"{domain} {blocks}" for domain, blocks in num_blocks.items())
        raise ValueError(f"domains.{empty[0]}: too small for one block of the {split} split (blocks: {found})")


def shuffled(domain: str, blocks: int, seed: int) -> Rows:
    """A domain's blocks in an order that no other domain has a part in: int64 (blocks,)."""
    return permutation(blocks, "mixture", seed, domain)


def in_turns(rows: Sequence[Rows]) -> npt.NDArray[np.int32]:
    """The blocks `rows` of each domain as one mixture, int32 (N, 2): the domain's index, and the row in its pack."""
    domain_N = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    key_N = np.concatenate([(np.arange(len(one)) + 0.5) / max(1, len(one)) for one in rows])
    return np.stack((domain_N, np.concatenate(rows)), axis=1)[np.lexsort((domain_N, key_N))].astype(np.int32)


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
