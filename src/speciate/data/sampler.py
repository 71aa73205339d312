"""Choose the blocks of a training step from the seed and the step alone, so that a resumed run needs no sampler state.

The steps read one endless stream, epoch after epoch. Epoch e is a permutation of all blocks, drawn for (seed, e).
Position p of the stream is the block permutation(seed, p // num_blocks)[p % num_blocks]. So each epoch has each block
exactly once, also where an epoch ends inside a step. All ablations of a seed read the same blocks in the same order.

Of `world` processes that train together, each reads an equal, contiguous part of the step's blocks, rank 0 the first.
Concatenated by rank, the parts are the step's blocks in order, whatever the number of processes.
"""

import functools

import numpy as np
import numpy.typing as npt

from speciate.data.permutation import permutation


def block_rows(
    seed: int, step: int, blocks_per_step: int, num_blocks: int, *, rank: int = 0, world: int = 1
) -> npt.NDArray[np.int64]:
    """Return the rows of the training mixture that `rank` reads at `step`, int64 (blocks_per_step / world,).

    Ranks and steps count from 0.

    Raises:
        ValueError: there are no blocks, or `world` does not divide `blocks_per_step`.
    """
    if num_blocks < 1:
        raise ValueError("the training mixture has no blocks")
    if blocks_per_step % world:
        raise ValueError(
            f"training.blocks_per_step: {blocks_per_step} blocks cannot be divided evenly among {world} processes"
        )
    assert 0 <= rank < world, (rank, world)
    blocks_per_rank = blocks_per_step // world
    first = step * blocks_per_step + rank * blocks_per_rank
    stream_positions = np.arange(first, first + blocks_per_rank, dtype=np.int64)
    epochs, positions = np.divmod(stream_positions, num_blocks)
    rows = np.empty_like(stream_positions)
    for epoch in np.unique(epochs).tolist():
        rows[epochs == epoch] = _epoch_order(seed, epoch, num_blocks)[positions[epochs == epoch]]
    return rows


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_blocks: int) -> npt.NDArray[np.int64]:
    order = permutation(num_blocks, "train", seed, epoch)
    order.flags.writeable = False
    return order
