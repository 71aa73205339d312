"""Prefetch batches: a thread reads and pins the batches of the coming steps while the device computes.

What a step reads is a function of its number alone (data/sampler.py), so reading ahead changes no bit. Pinned memory
lets a GPU fetch a batch while it computes. On a CPU the thread would only take turns with the training itself
(measured: benchmarks/feed.py), so there each step reads its own batch when it comes.

B blocks of T tokens.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor | None]
"""token_BT and, where documents are kept apart, document_BT; on the CPU."""


class BatchPrefetcher:
    """Returns batches by step, and reads those of the next `ahead` steps. A context: its thread ends with the block.

    Args:
        read: reads the batch of a step; called in one thread, at most once for each step if steps come in order.
        num_steps: steps from here on are not read ahead.
        ahead: number of steps to read ahead; 0: none, without a thread.
        pinned: whether batches are kept in page-locked memory, which a GPU can fetch from by itself.
    """

    def __init__(self, read: Callable[[int], Batch], num_steps: int, ahead: int, pinned: bool = False) -> None:
        self.num_steps, self.ahead, self.pinned = num_steps, ahead, pinned
        self._read = read
        self._thread = ThreadPoolExecutor(1, "speciate-prefetch") if ahead else None
        self._pending: dict[int, Future[Batch]] = {}
        self._last: tuple[int, Batch] | None = None

    @classmethod
    def for_device(cls, device: torch.device, read: Callable[[int], Batch], num_steps: int) -> Self:
        """Return the prefetcher that suits the device."""
        on_gpu = device.type == "cuda"
        return cls(read, num_steps, ahead=2 if on_gpu else 0, pinned=on_gpu)

    def __call__(self, step: int) -> Batch:
        """Return the batch of `step`; raise what reading it raised."""
        if self._thread is None:
            if self._last is None or self._last[0] != step:
                self._last = step, self._load(step)
            return self._last[1]
        for coming in range(step, min(step + 1 + self.ahead, self.num_steps)):
            if coming not in self._pending:
                self._pending[coming] = self._thread.submit(self._load, coming)
        batch = self._pending[step].result()
        for past in [old for old in self._pending if old < step]:
            del self._pending[past]
        return batch

    def _load(self, step: int) -> Batch:
        token_BT, document_BT = self._read(step)
        if not self.pinned:
            return token_BT, document_BT
        return token_BT.pin_memory(), None if document_BT is None else document_BT.pin_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
