"""The context of a training run (spec, data, objective, processes), and a step's snapshot and micro-batches."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speciate.config.run import RunSpec
from speciate.training.checkpoint.state import State
from speciate.training.distributed.ranks import ALONE, Ranks
from speciate.training.objective_base import Objective
from speciate.training.observer import Observer


@dataclass(frozen=True)
class TrainContext:
    """What a run needs besides its state."""

    spec: RunSpec
    objective: Objective
    lr_factor: Callable[[int], float]
    """Step -> the learning rate as a share of its peak."""
    tokens: Callable[[int], Tensor]
    """Step -> the step's blocks, (blocks_per_step, T) int64."""
    observer: Observer
    documents: Callable[[int], Tensor | None] | None = None
    """Step -> the document of each position of those blocks; None if the model does not separate documents."""
    ranks: Ranks = ALONE
    """The processes that train this run; `tokens` and `documents` are those of this process."""
    loss_module: torch.nn.Module | None = None
    """What runs a micro-batch, from `ranks.loss_module`; None: a LossModule of this process alone."""
    rows: Callable[[int], npt.NDArray[np.int64]] | None = None
    """Step -> the numbers of its blocks in the mixture, for the report of a step that failed."""
    domains: Callable[[int], Tensor] | None = None
    """Step -> the domain of each of this process's blocks, (blocks_per_step,); None: no module needs it."""
    loss_limit: float | None = None
    """The loss above which the run has diverged; None: no limit."""

    @property
    def name(self) -> str:
        """The run's name in error messages."""
        return f"run {self.spec.ablation}, seed {self.spec.seed}"


class StepSnapshot:
    """The state that a step changes before its update: buffers (a balancer's counts) and this process's RNG state."""

    def __init__(self, state: State) -> None:
        self.device = next(state.model.parameters()).device
        self.buffers = [(buffer, buffer.clone()) for buffer in state.model.buffers()]
        self.rng_state = torch.get_rng_state()
        self.gpu_rng_state = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Undo the step: restore buffers and random state, and drop the gradients."""
        for buffer, value in self.buffers:
            buffer.copy_(value)
        torch.set_rng_state(self.rng_state)
        if self.gpu_rng_state is not None:
            torch.cuda.set_rng_state(self.gpu_rng_state, self.device)
        state.optimizer.zero_grad(set_to_none=True)


class MicroBatch(NamedTuple):
    """Some of a step's blocks, on the device."""

    token_BT: Tensor
    document_BT: Tensor | None
    domain_B: Tensor | None
    loss_divisor: float
    """What its mean loss is divided by in the step's loss; infinite for a micro-batch without predictions."""


def micro_batches(context: TrainContext, state: State) -> list[MicroBatch]:
    """Split the step's blocks into micro-batches.

    A micro-batch's loss divisor is the step's predictions (the mean over processes) over its own: `grad_accumulation`,
    unless documents are kept apart, when micro-batches have unequal numbers of predictions. Predictions are counted
    before the blocks go to the device, which may fetch them while it computes.

    Raises:
        ValueError: the step predicts nothing.
    """
    num_micro_batches = state.grad_accumulation or context.spec.training.grad_accumulation
    tokens = context.tokens(state.step).chunk(num_micro_batches)
    document_BT = None if context.documents is None else context.documents(state.step)
    documents = [None] * num_micro_batches if document_BT is None else document_BT.chunk(num_micro_batches)
    all_domains_B = None if context.domains is None else context.domains(state.step)
    domains = [None] * num_micro_batches if all_domains_B is None else all_domains_B.chunk(num_micro_batches)
    blocks = list(zip(tokens, documents, strict=True))
    counts = [int(context.objective.loss_mask(state.model, *batch).sum()) for batch in blocks]
    (num_predictions,) = context.ranks.mean(sum(counts))
    if not num_predictions:
        raise ValueError(f"{context.name}: step {state.step}: no token is predicted")
    device = context.ranks.device
    return [
        MicroBatch(
            token_BT.to(device, non_blocking=True),
            None if document_BT is None else document_BT.to(device, non_blocking=True),
            domain_B,
            num_predictions / count if count else math.inf,
        )
        for (token_BT, document_BT), domain_B, count in zip(blocks, domains, counts, strict=True)
    ]
