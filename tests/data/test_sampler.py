import numpy as np
import pytest

from speciate.data.sampler import block_rows


@pytest.mark.parametrize(("per_step", "num_blocks"), [(4, 12), (5, 12), (7, 3), (1, 1), (16, 100)])
def test_each_block_exactly_once_an_epoch(per_step: int, num_blocks: int) -> None:
    num_steps = 5 * num_blocks
    stream = np.concatenate([block_rows(3, step, per_step, num_blocks) for step in range(num_steps)])
    epochs = stream[: len(stream) // num_blocks * num_blocks].reshape(-1, num_blocks)
    assert (np.sort(epochs, axis=1) == np.arange(num_blocks)).all()
    if num_blocks > 10:
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == len(epochs)


def test_a_step_depends_on_seed_and_step_alone() -> None:
    late = block_rows(0, 10_000_000, 8, 50)
    block_rows(0, 3, 8, 50)
    assert (block_rows(0, 10_000_000, 8, 50) == late).all()
    assert late.dtype == np.int64
    assert (block_rows(1, 10_000_000, 8, 50) != late).any()


def test_the_cached_order_cannot_be_spoilt() -> None:
    first = block_rows(0, 0, 50, 50)
    first[:] = 0
    assert sorted(block_rows(0, 0, 50, 50).tolist()) == list(range(50))


def test_no_blocks() -> None:
    with pytest.raises(ValueError, match="no blocks"):
        block_rows(0, 0, 4, 0)
