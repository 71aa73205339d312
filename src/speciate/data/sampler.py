"""Which blocks a training step reads: a function of the seed and the step alone, so a resumed run needs no state.

The steps run through one endless stream, epoch after epoch; epoch e is a permutation of all blocks drawn for (seed, e).
Position p of the stream is the block permutation(seed, p // num_blocks)[p % num_blocks]: each block exactly once an
epoch, also where an epoch ends inside a step. Every ablation of a seed reads the same blocks in the same order.

Processes that train together (`world` of them) each take an equal run of the step's blocks, rank 0 the first, so that
end to end they have the step's blocks in order, however many they are.
"""

import functools

import numpy as np
import numpy.typing as npt

from speciate.data.permutation import permutation


def block_rows(
    seed: int, step: int, blocks_per_step: int, num_blocks: int, rank: int = 0, world: int = 1
) -> npt.NDArray[np.int64]:
    """The rows of the training mixture that `rank` reads at `step` (both from 0): int64 (blocks_per_step / world,).

    Raises:
        ValueError: there are no blocks, or `world` does not divide `blocks_per_step`.
    """
    if num_blocks < 1:
        raise ValueError("the training mixture has no blocks")
    if blocks_per_step % world:
        raise ValueError(f"training.blocks_per_step: {blocks_per_step} blocks do not divide among {world} processes")
    assert 0 <= rank < world, (rank, world)
    mine = blocks_per_step // world
    first = step * blocks_per_step + rank * mine
    place = np.arange(first, first + mine, dtype=np.int64)
    epochs, turn = np.divmod(place, num_blocks)
    rows = np.empty_like(place)
    for epoch in np.unique(epochs).tolist():
        rows[epochs == epoch] = _epoch(seed, epoch, num_blocks)[turn[epochs == epoch]]
    return rows


@functools.lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, num_blocks: int) -> npt.NDArray[np.int64]:
    order = permutation(num_blocks, "train", seed, epoch)
    order.flags.writeable = False
    return order
