"""Test that prefetched batches equal those read on demand."""

import threading

import pytest
import torch

from speciate.training.prefetch import Batch, BatchPrefetcher


class Reader:
    """Return batches filled with the step's number, and record what was read and in which thread."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, step: int) -> Batch:
        self.steps.append(step)
        self.threads.add(threading.get_ident())
        if step == 5:
            raise ValueError("step 5 cannot be read")
        return torch.full((2, 3), step), None


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_every_step_has_its_own_batch_read_once(ahead: int) -> None:
    read = Reader()
    with BatchPrefetcher(read, 4, ahead) as feed:
        for step in range(4):
            for _ in range(2):  # tokens, then documents
                token_BT, document_BT = feed(step)
                assert token_BT.tolist() == [[step] * 3] * 2
                assert document_BT is None
    assert read.steps == [0, 1, 2, 3]
    assert (threading.get_ident() in read.threads) == (ahead == 0)


def test_a_resumed_run_begins_where_it_was() -> None:
    read = Reader()
    with BatchPrefetcher(read, 4, ahead=1) as feed:
        assert feed(2)[0].unique().tolist() == [2]
    assert read.steps[0] == 2


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_reading_raises_is_raised_at_its_step(ahead: int) -> None:
    with BatchPrefetcher(Reader(), 9, ahead) as feed:
        feed(4)
        with pytest.raises(ValueError, match="step 5 cannot be read"):
            feed(5)


def test_a_cpu_reads_in_time_and_a_gpu_ahead() -> None:
    assert BatchPrefetcher.for_device(torch.device("cpu"), Reader(), 4).ahead == 0
    with BatchPrefetcher.for_device(torch.device("cuda"), Reader(), 4) as feed:
        assert (feed.ahead, feed.pinned) == (2, True)
