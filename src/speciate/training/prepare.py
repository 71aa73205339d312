"""Prepare a run: its name, training blocks, state before the first step, and what it needs besides."""

import math
import pathlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from speciate.config.run import RunSpec
from speciate.data.blocks import TrainBlocks, read_block_set
from speciate.data.sampler import block_rows
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model
from speciate.training.checkpoint.ema import WeightAverage
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.distributed.ranks import Ranks, seed_rank
from speciate.training.numerics import precision
from speciate.training.observer import Observer
from speciate.training.prefetch import Batch, BatchPrefetcher


def run_name(spec: RunSpec) -> str:
    """Return a run's name in log lines."""
    return f"{spec.ablation} seed {spec.seed}"


def open_blocks(spec: RunSpec, mixture_folder: pathlib.Path) -> TrainBlocks:
    """Open the mixture's training blocks. Raises ValueError if there are too few for a step."""
    blocks = TrainBlocks(mixture_folder)
    if len(blocks) < spec.training.blocks_per_step:
        needed = f"but a step needs {spec.training.blocks_per_step}"
        raise ValueError(f"run {run_name(spec)}: the mixture has {len(blocks)} blocks, {needed}")
    return blocks


def initial_state(spec: RunSpec, vocabulary: int, start: pathlib.Path | None, ranks: Ranks) -> State:
    """Return the state of a run before its first step."""
    settings, model = spec.training, initial_model(spec, vocabulary, start)
    if ranks.world > 1:  # all processes have drawn the same weights; from here on each has its own noise
        seed_rank(f"noise {spec.seed}".encode(), ranks.rank)
    ranks.place(model)
    optimizer = spec.optimizer.component().build(spec.optimizer, model)
    precision.prepare_blocks(settings, model)
    ema = WeightAverage(model, settings.ema, settings.ema_warmup) if settings.ema is not None else None
    return State(step=0, model=model, optimizer=optimizer, metrics=[], telemetry={}, ema=ema)


def initial_model(spec: RunSpec, vocabulary: int, start: pathlib.Path | None = None) -> Transformer:
    """Return the run's model with its initial weights, which depend only on the seed and on what it starts from."""
    torch.manual_seed(spec.seed)
    model = build_model(spec, vocabulary)
    spec.start.component().initialise(spec.start, model, spec, start)
    return model


def batch_reader(spec: RunSpec, blocks: TrainBlocks, ranks: Ranks) -> Callable[[int], Batch]:
    """Return a function that reads this process's blocks of a step."""

    def read(step: int) -> Batch:
        rows = block_rows(
            spec.seed, step, spec.training.blocks_per_step, len(blocks), rank=ranks.rank, world=ranks.world
        )
        documents = torch.from_numpy(blocks.documents(rows)) if spec.model.separate_documents else None
        return torch.from_numpy(blocks.tokens(rows)), documents

    return read


def build_context(
    spec: RunSpec,
    blocks: TrainBlocks,
    mixture_folder: pathlib.Path,
    *,
    state: State,
    batches: BatchPrefetcher,
    ranks: Ranks,
) -> TrainContext:
    """Return what the run needs besides its state."""
    settings, schedule = spec.training, spec.schedule.component()
    objective = spec.objective.component().Objective(spec.objective)
    probe, validation = (read_block_set(mixture_folder, name) for name in ("probe", "validation"))

    def rows(step: int, rank: int = 0, world: int = 1) -> npt.NDArray[np.int64]:
        return block_rows(spec.seed, step, settings.blocks_per_step, len(blocks), rank=rank, world=world)

    return TrainContext(
        spec=spec,
        objective=objective,
        lr_factor=lambda step: float(schedule.factor(spec.schedule, step, settings.num_steps)),
        tokens=lambda step: batches(step)[0],
        observer=Observer(spec.telemetry, objective, probe, validation),
        documents=lambda step: batches(step)[1],
        ranks=ranks,
        loss_module=ranks.loss_module(objective, state.model),
        rows=rows,
        domains=lambda step: torch.from_numpy(blocks.domains(rows(step, ranks.rank, ranks.world))),
        loss_limit=settings.diverged_at * math.log(blocks.vocabulary),
    )
