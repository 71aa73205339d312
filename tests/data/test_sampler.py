import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 5),
    step=st.integers(0, 10**9),
    world=st.integers(1, 8),
    each=st.integers(1, 5),
    num_blocks=st.integers(1, 60),
)
def test_ranks_share_a_step_in_order(seed: int, step: int, world: int, each: int, num_blocks: int) -> None:
    expected = block_rows(seed, step, world * each, num_blocks)
    parts = [block_rows(seed, step, world * each, num_blocks, rank=rank, world=world) for rank in range(world)]
    assert [len(part) for part in parts] == [each] * world
    assert (np.concatenate(parts) == expected).all()


@settings(max_examples=100, deadline=None)
@given(per_step=st.integers(1, 9), num_blocks=st.integers(1, 30), stopped=st.integers(0, 40))
def test_a_run_resumed_at_any_step_reads_what_it_would_have_read(per_step: int, num_blocks: int, stopped: int) -> None:
    def stream(steps: range) -> list[int]:
        return [row for step in steps for row in block_rows(1, step, per_step, num_blocks).tolist()]

    assert stream(range(stopped)) + stream(range(stopped, 45)) == stream(range(45))


def test_blocks_that_do_not_divide_among_processes() -> None:
    with pytest.raises(
        ValueError, match=r"training.blocks_per_step: 16 blocks cannot be divided evenly among 3 processes"
    ):
        block_rows(0, 0, 16, 100, rank=1, world=3)
