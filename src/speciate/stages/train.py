"""Train one run and write its weights, metrics and telemetry.

A run that receives SIGTERM, SIGINT or SIGUSR1 finishes its step, saves and exits with status 75; the same command
resumes it bit-identically. A run that was killed resumes from its newest intact checkpoint. A run that fails for a
numerical reason is written and reported as failed (docs/checkpoints.md).

A path that is left out is derived from the place of the spec, results/<study>/runs/<ablation>/seed<k>.

Example:
    speciate train --spec results/smoke/runs/top1/seed0/spec.json
"""

import argparse
import contextlib
import functools
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speciate.cli import log
from speciate.config.run import RunSpec, read_spec
from speciate.data.blocks import TrainBlocks, read_set
from speciate.data.sampler import block_rows
from speciate.graph.provenance import digest
from speciate.graph.run_paths import run_paths
from speciate.model.transformer import Transformer
from speciate.training import loop
from speciate.training.build_model import build_model
from speciate.training.checkpoint import sharded, store
from speciate.training.checkpoint.ema import WeightAverage
from speciate.training.checkpoint.identity import Identity, identify
from speciate.training.checkpoint.snapshots import Snapshots
from speciate.training.checkpoint.store import State
from speciate.training.context import Clock, TrainContext
from speciate.training.distributed import ranks as distributed
from speciate.training.distributed.ranks import ALONE, Ranks
from speciate.training.distributed.signals import STOPPED, StopRequest
from speciate.training.logs import run_files, run_metadata, sinks
from speciate.training.logs.progress import Progress
from speciate.training.logs.sinks import Sinks
from speciate.training.numerics import precision
from speciate.training.numerics.loss_monitor import FailedRun
from speciate.training.observer import Observer
from speciate.training.optimizer import param_groups
from speciate.training.prefetch import Batch, BatchPrefetcher


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the run's spec.json")
    parser.add_argument("--mixture-folder", type=pathlib.Path, help="what `balance` wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, help="where to write the run's files")
    parser.add_argument(
        "--checkpoint-folder", type=pathlib.Path, help="where to keep checkpoints, from which a stopped run resumes"
    )
    parser.add_argument(
        "--start", type=pathlib.Path, help="weights that the run starts from, where it does not start from scratch"
    )
    parser.add_argument(
        "--sink",
        action="append",
        default=[],
        help="where to send metrics besides metrics.jsonl: tensorboard, trackio or wandb; may be repeated",
    )
    parser.add_argument("--sink-folder", type=pathlib.Path, help="where the sinks keep their files")
    parser.add_argument(
        "--processes", type=int, help="number of processes that torchrun launched (default: the spec's)"
    )


def main(arguments: argparse.Namespace) -> None:
    """Train the run, and write its files."""
    arguments.sink = [*sinks.from_environment(), *arguments.sink]
    spec = read_spec(RunSpec, arguments.spec)
    complete(arguments, spec)
    torch.set_num_threads(spec.training.threads)
    stop = StopRequest()
    run_folder, code = arguments.checkpoint_folder / f"{spec.ablation}-seed{spec.seed}", digest("train", spec)
    places = (arguments.mixture_folder, arguments.output_folder, run_folder / code)
    with distributed.joined(spec.training, arguments.processes) as ranks, precision.determinism(spec.training):
        asked = arguments.sink if ranks.first else ()
        watched = Sinks([sinks.parse(text) for text in asked], arguments.sink_folder, spec, log)
        with store.exclusive(run_folder) if ranks.first else contextlib.nullcontext():
            if ranks.first:
                own = identity_of(spec, arguments.mixture_folder, arguments.start)
                changed = store.refuse_others(run_folder, code, own)
                if changed:
                    log(f"{name(spec)}: {changed}; starts anew")
            ended = train(spec, *places, stop, arguments.start, watched, ranks)
            if ended and ranks.first:
                shutil.rmtree(run_folder)
    if not ended:
        if stop.received is not None:
            log(f"{name(spec)}: {stop.received.name} received; saved, and the same command continues it")
        sys.exit(STOPPED)


def name(spec: RunSpec) -> str:
    """A run as a reader names it."""
    return f"{spec.ablation} seed {spec.seed}"


def complete(arguments: argparse.Namespace, spec: RunSpec) -> None:
    """Fills in the paths that were left out. Raises ValueError where they cannot be told from the spec's place."""
    around = functools.cache(lambda: run_paths(arguments.spec, spec))
    arguments.mixture_folder = arguments.mixture_folder or around().mixture
    arguments.output_folder = arguments.output_folder or around().home / "runs" / spec.ablation / f"seed{spec.seed}"
    arguments.checkpoint_folder = arguments.checkpoint_folder or around().home / "checkpoints"
    if hasattr(spec.start, "origin") and arguments.start is None:
        arguments.start = around().start
    if arguments.sink_folder is None:
        arguments.sink_folder = around().home / "sinks" if arguments.sink else arguments.output_folder


def identity_of(spec: RunSpec, mixture_folder: pathlib.Path, start: pathlib.Path | None = None) -> Identity:
    """What a checkpoint may continue, code aside: the same spec, data, vocabulary and start."""
    mixture = json.loads((mixture_folder / "mixture.json").read_text(encoding="utf-8"))
    vocabulary = {"tokens": mixture["vocabulary"], "tokenizer": mixture["tokenizer_fingerprint"]}
    return identify(spec, mixture_folder, vocabulary, start)


def build(spec: RunSpec, vocabulary: int, start: pathlib.Path | None = None) -> Transformer:
    """The run's model with its initial weights, which depend on the seed and on what it starts from alone."""
    torch.manual_seed(spec.seed)
    model = build_model(spec, vocabulary)
    spec.start.component().begin(spec.start, model, spec, start)
    return model


def train(
    spec: RunSpec,
    mixture_folder: pathlib.Path,
    output_folder: pathlib.Path,
    checkpoints: pathlib.Path,
    stop: StopRequest,
    start: pathlib.Path | None = None,
    watched: Sinks | None = None,
    ranks: Ranks = ALONE,
) -> bool:
    """Trains one run and writes its files; False when it was stopped before its end. Of `ranks`, each calls it.

    Raises:
        FailedRun: its numbers do not let it go on, and its spec asks for that to be an error.
        ValueError: it cannot begin, or what is there of it is damaged or another run's; names what.
    """
    blocks, clock, identity = training_blocks(spec, mixture_folder), Clock(), identity_of(spec, mixture_folder, start)
    state = begin(spec, blocks.vocabulary, start, ranks)
    split = param_groups.describe(state.optimizer, state.model)
    tell = log if ranks.first else lambda text: None
    tell(f"{name(spec)}: {param_groups.summary(split)}")
    if store.restore(checkpoints, state, ranks, identity, tell):
        tell(f"{name(spec)}: continues from step {state.step}")
    progress = Progress.of(spec, state, blocks.block_length, ranks)
    watched, snapshots = watched or Sinks((), checkpoints, spec, log), Snapshots(output_folder, spec.training, ranks)
    snapshots.begin(state)

    def follow(state: State, happened: dict[str, float]) -> None:
        if ranks.first:
            progress(state, happened)
            watched.follow(state)

    saved = functools.partial(save, checkpoints, ranks=ranks, identity=identity, keep=spec.training.keep_last)
    failure: FailedRun | None = None
    with (
        watched.opened(state),
        BatchPrefetcher.to(ranks.device, reader(spec, blocks, ranks), spec.training.num_steps) as feed,
    ):
        run = assemble(spec, blocks, mixture_folder, state, feed, ranks)
        try:
            run_files.refuse_failed(start)
            if not loop.train(run, state, snapshots.follow, saved, ranks.agreed(stop.__bool__), follow, clock):
                return False
        except FailedRun as error:
            failure = error
    if ranks.sharded:
        gather(state, spec, blocks.vocabulary)
    found = run_metadata.run_metadata(spec, state, blocks, ranks) | {"optimizer": split}
    conclude(spec, state, output_folder, found, run_metadata.timing(clock, progress, state.step), failure, ranks)
    return True


def conclude(
    spec: RunSpec,
    state: State,
    output_folder: pathlib.Path,
    found: dict[str, Any],
    timing: dict[str, Any],
    failure: FailedRun | None,
    ranks: Ranks,
) -> None:
    """Writes what a run leaves behind, and says how it ended. Raises FailedRun where that is to be an error."""
    if ranks.first:
        run_files.write_failure(output_folder, failure)
    if failure is not None and spec.training.on_failure == "stop":
        raise failure
    if not ranks.first:
        return
    run_files.write(output_folder, state, spec.training, found | run_files.outcome(state, failure), timing)
    if failure is not None:
        log(f"{name(spec)}: FAILED: {failure}; the study goes on without it, see {output_folder / run_files.FAILURE}")
    else:
        log(f"{name(spec)}: done, {timing['tokens_per_second']:,.0f} tokens/s, {timing['wall_seconds']:.0f} s")


def training_blocks(spec: RunSpec, mixture_folder: pathlib.Path) -> TrainBlocks:
    """The mixture's blocks. Raises ValueError where they are too few for a step."""
    blocks = TrainBlocks(mixture_folder)
    if len(blocks) < spec.training.blocks_per_step:
        needs = f"a step needs {spec.training.blocks_per_step}"
        raise ValueError(f"run {name(spec)}: the mixture has {len(blocks)} blocks, {needs}")
    return blocks


def begin(spec: RunSpec, vocabulary: int, start: pathlib.Path | None, ranks: Ranks) -> State:
    """The state of a run before its first step."""
    settings, model = spec.training, build(spec, vocabulary, start)
    if ranks.world > 1:  # all have drawn the same weights; their noise is their own
        distributed.seed_from(f"noise {spec.seed}".encode(), ranks.rank)
    ranks.spread(model)
    optimizer = spec.optimizer.component().build(spec.optimizer, model)
    precision.prepare(settings, model)
    average = WeightAverage(model, settings.ema, settings.ema_warmup) if settings.ema is not None else None
    return State(step=0, model=model, optimizer=optimizer, metrics=[], telemetry={}, average=average)


def reader(spec: RunSpec, blocks: TrainBlocks, ranks: Ranks) -> Callable[[int], Batch]:
    """What reads this process's blocks of a step."""

    def read(step: int) -> Batch:
        rows = block_rows(spec.seed, step, spec.training.blocks_per_step, len(blocks), ranks.rank, ranks.world)
        documents = torch.from_numpy(blocks.documents(rows)) if spec.model.separate_documents else None
        return torch.from_numpy(blocks.tokens(rows)), documents

    return read


def assemble(
    spec: RunSpec, blocks: TrainBlocks, mixture_folder: pathlib.Path, state: State, feed: BatchPrefetcher, ranks: Ranks
) -> TrainContext:
    """What the run needs beside its state."""
    settings, schedule = spec.training, spec.schedule.component()
    objective = spec.objective.component().Objective(spec.objective)

    def rows(step: int, rank: int = 0, world: int = 1) -> npt.NDArray[np.int64]:
        return block_rows(spec.seed, step, settings.blocks_per_step, len(blocks), rank, world)

    return TrainContext(
        spec=spec,
        objective=objective,
        factor=lambda step: float(schedule.factor(spec.schedule, step, settings.num_steps)),
        tokens=lambda step: feed(step)[0],
        observer=Observer(
            spec.telemetry, objective, read_set(mixture_folder, "probe"), read_set(mixture_folder, "validation")
        ),
        documents=lambda step: feed(step)[1],
        ranks=ranks,
        step=ranks.step(objective, state.model),
        rows=rows,
        domains=lambda step: torch.from_numpy(blocks.domains(rows(step, ranks.rank, ranks.world))),
        loss_limit=settings.diverged_at * math.log(blocks.vocabulary),
    )


def save(folder: pathlib.Path, state: State, ranks: Ranks, identity: Identity, keep: int) -> None:
    """Saves a checkpoint: each process its parts of a sharded run, all else the first."""
    state.random = ranks.random_states()
    if ranks.in_parts:
        average = None if state.average is None else state.average.weights
        state.shards = folder / ".shards"
        sharded.save_parts(state.shards, sharded.parts(state.model, state.optimizer, average), ranks)
    if ranks.first:
        store.save(folder, state, identity, keep)
    ranks.wait()


def gather(state: State, spec: RunSpec, vocabulary: int) -> None:
    """Makes a sharded run's model and average whole; each process calls it."""
    weights = sharded.whole(state.model.state_dict())
    state.model = build_model(spec, vocabulary)
    state.model.load_state_dict(weights, assign=True)
    if state.average is not None:
        state.average.weights = sharded.whole(state.average.weights)
