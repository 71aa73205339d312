"""What a run is while it trains: its spec with what serves it, its clock, and a step's blocks in portions."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speciate.config.run import RunSpec
from speciate.training.checkpoint.store import State
from speciate.training.distributed.ranks import ALONE, Ranks
from speciate.training.loss.objective import Objective
from speciate.training.observer import Observer


@dataclass
class Clock:
    """Seconds that a run spent on each of its parts; reported, and in no table, since no two runs agree on it."""

    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = field(default_factory=time.monotonic)
    """When it began."""
    cpu: float = field(default_factory=time.process_time)

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Adds the block's CPU seconds to `part`."""
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - started


@dataclass(frozen=True)
class TrainContext:
    """What a run needs beside its state."""

    spec: RunSpec
    objective: Objective
    factor: Callable[[int], float]
    """Step -> share of the peak learning rate."""
    tokens: Callable[[int], Tensor]
    """Step -> the step's blocks, (blocks_per_step, T) int64."""
    observer: Observer
    documents: Callable[[int], Tensor | None] | None = None
    """Step -> the document of each position of those blocks; None where the model does not separate documents."""
    ranks: Ranks = ALONE
    """The processes that train this run; `tokens` and `documents` are this one's."""
    step: torch.nn.Module | None = None
    """What runs a micro-batch, of `ranks.step`; None: a plain Step."""
    rows: Callable[[int], npt.NDArray[np.int64]] | None = None
    """Step -> the numbers of its blocks in the mixture, for the report of a step that failed."""
    domains: Callable[[int], Tensor] | None = None
    """Step -> the domain of each of its blocks, (blocks_per_step,), this process's; None: nobody is told."""
    loss_limit: float | None = None
    """The loss above which the run has diverged; None: there is none."""

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"run {self.spec.ablation}, seed {self.spec.seed}"


class StepSnapshot:
    """What a step changes before its update: buffers (a balance's counts) and this process's random numbers."""

    def __init__(self, state: State) -> None:
        self.device = next(state.model.parameters()).device
        self.buffers = [(buffer, buffer.clone()) for buffer in state.model.buffers()]
        self.random = torch.get_rng_state()
        self.random_gpu = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Makes it undone."""
        for buffer, value in self.buffers:
            buffer.copy_(value)
        torch.set_rng_state(self.random)
        if self.random_gpu is not None:
            torch.cuda.set_rng_state(self.random_gpu, self.device)
        state.optimizer.zero_grad(set_to_none=True)


def micro_batches(run: TrainContext, state: State) -> list[tuple[Tensor, Tensor | None, float]]:
    """The step's blocks in portions: tokens, documents, and what a portion's mean loss is divided by in the step's.

    That is the step's predictions (a process's mean) over the portion's: `accumulation`, unless documents are kept
    apart, when one portion has more predictions than another. They are counted before they go to the device, which may
    fetch them while it computes.
    """
    num_portions = state.grad_accumulation or run.spec.training.grad_accumulation
    tokens = run.tokens(state.step).chunk(num_portions)
    of_step = None if run.documents is None else run.documents(state.step)
    documents = [None] * num_portions if of_step is None else of_step.chunk(num_portions)
    portions = list(zip(tokens, documents, strict=True))
    counts = [int(run.objective.loss_mask(state.model, *portion).sum()) for portion in portions]
    (predicted,) = run.ranks.mean(sum(counts))
    if not predicted:
        raise ValueError(f"{run.name}: step {state.step}: nothing is predicted")
    device = run.ranks.device
    return [
        (
            token_BT.to(device, non_blocking=True),
            None if document_BT is None else document_BT.to(device, non_blocking=True),
            predicted / count if count else math.inf,
        )
        for (token_BT, document_BT), count in zip(portions, counts, strict=True)
    ]


def micro_batch_domains(run: TrainContext, state: State, portion: int, num_portions: int) -> Tensor | None:
    """The domain of each block of one of the step's portions."""
    return None if run.domains is None else run.domains(state.step).chunk(num_portions)[portion]
