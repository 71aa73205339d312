"""The blocks of the coming steps, read and pinned by a thread while the device computes.

What a step reads is a function of its number alone (data/sampler.py), so reading ahead changes no bit. Pinned memory
lets a GPU fetch a batch while it computes. On a CPU the reader would only take turns with the training itself
(measured: benchmarks/feed.py), so there a step reads its own blocks when it comes.

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
    """Batches by step, those of the next `ahead` steps on their way. A context: its thread ends with the block.

    Args:
        read: the batch of a step; called in one thread, each step at most once unless steps are asked for out of order.
        num_steps: steps from here on are not read ahead.
        ahead: steps that are read ahead; 0: none, and there is no thread.
        pinned: keep batches in memory that a GPU can fetch from by itself.
    """

    def __init__(self, read: Callable[[int], Batch], num_steps: int, ahead: int, pinned: bool = False) -> None:
        self.num_steps, self.ahead, self.pinned = num_steps, ahead, pinned
        self._read = read
        self._thread = ThreadPoolExecutor(1, "speciate-feed") if ahead else None
        self._coming: dict[int, Future[Batch]] = {}
        self._last: tuple[int, Batch] | None = None

    @classmethod
    def to(cls, device: torch.device, read: Callable[[int], Batch], num_steps: int) -> Self:
        """As the device wants it."""
        on_gpu = device.type == "cuda"
        return cls(read, num_steps, ahead=2 if on_gpu else 0, pinned=on_gpu)

    def __call__(self, step: int) -> Batch:
        """The batch of `step`. What reading raises is raised here."""
        if self._thread is None:
            if self._last is None or self._last[0] != step:
                self._last = step, self._prepared(step)
            return self._last[1]
        for coming in range(step, min(step + 1 + self.ahead, self.num_steps)):
            if coming not in self._coming:
                self._coming[coming] = self._thread.submit(self._prepared, coming)
        batch = self._coming[step].result()
        for past in [old for old in self._coming if old < step]:
            del self._coming[past]
        return batch

    def _prepared(self, step: int) -> Batch:
        token_BT, document_BT = self._read(step)
        if not self.pinned:
            return token_BT, document_BT
        return token_BT.pin_memory(), None if document_BT is None else document_BT.pin_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
