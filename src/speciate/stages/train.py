"""Train one run and write its weights, metrics and telemetry.

A run that receives SIGTERM, SIGINT or SIGUSR1 finishes its step, saves and exits with status 75. The same command
resumes it, with the same bits on the same kind of processor and threads. A run that was killed resumes from its newest
intact checkpoint. A run that fails for a numerical reason is written and reported as failed (docs/checkpoints.md).

A path that is left out is derived from the place of the spec, results/<study>/runs/<ablation>/seed<k>.

Example:
    speciate train --spec results/smoke/runs/top1/seed0/plan.json
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import shutil
import sys
from typing import Any

import torch

from speciate.cli import log
from speciate.config.run import RunSpec, read_spec
from speciate.data.tokens.manifest import FILES, read_manifest
from speciate.graph.provenance import digest, made_by
from speciate.graph.run_paths import TOKENIZER, run_paths
from speciate.machine import FINISHED
from speciate.training import loop
from speciate.training.checkpoint import lock, run_results, sharded, store
from speciate.training.checkpoint.identity import Identity, identify, identity_key
from speciate.training.checkpoint.snapshots import Snapshots
from speciate.training.checkpoint.state import State
from speciate.training.distributed.ranks import ALONE, Ranks, join_processes
from speciate.training.distributed.signals import STOPPED, StopRequest
from speciate.training.logs import run_files, sinks
from speciate.training.logs.progress import Progress
from speciate.training.logs.run_metadata import environment
from speciate.training.logs.sinks import Sinks
from speciate.training.logs.timing import PhaseTimer, timing
from speciate.training.numerics import precision
from speciate.training.numerics.loss_monitor import FailedRun
from speciate.training.optimizer import param_groups
from speciate.training.prefetch import BatchPrefetcher
from speciate.training.prepare import batch_reader, build_context, initial_state, open_blocks, run_name

SOMETIMES = (*run_results.SOMETIMES, *(f"{TOKENIZER}/{name}" for name in FILES))
"""Files in a run's folder that not every run has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the run's spec.json")
    parser.add_argument("--mixture-folder", type=pathlib.Path, help="what `balance` wrote")
    parser.add_argument(
        "--tokenizer-folder", type=pathlib.Path, help="what `fit` wrote; it is copied into the run's folder"
    )
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
        "--adopt",
        action="store_true",
        help="where another process trains the run, wait for it and take over what it has done; and keep the run's "
        "files beside its checkpoints, too, until the workflow has seen them",
    )
    parser.add_argument(
        "--processes", type=int, help="number of processes that torchrun launched (default: the spec's)"
    )


def main(arguments: argparse.Namespace) -> None:
    """Train the run, and write its files."""
    arguments.sink = [*sinks.from_environment(), *arguments.sink]
    spec = read_spec(RunSpec, arguments.spec)
    fill_in_paths(arguments, spec)
    torch.set_num_threads(spec.training.threads)
    stop = StopRequest()
    run_folder = arguments.checkpoint_folder / f"{spec.ablation}-seed{spec.seed}"
    identity = run_identity(spec, arguments.mixture_folder, arguments.start)
    key = identity_key(identity, digest("train", spec))
    folders = (arguments.mixture_folder, arguments.output_folder, run_folder / key)
    kinds = [sinks.parse(text) for text in arguments.sink]
    with (
        hold(run_folder, spec, stop, wait=arguments.adopt) as held,
        join_processes(spec.training, arguments.processes, stop.__bool__ if arguments.adopt else None) as ranks,
        precision.determinism(spec.training),
    ):
        run_sinks = Sinks(kinds if ranks.is_main else [], arguments.sink_folder, spec, log)
        if held is not None:
            change = store.earlier_attempt(run_folder, key, identity)
            if change:
                log(f"{run_name(spec)}: starts from scratch: {change}")
            store.remove_old_attempts(run_folder, key)
        complete = ranks.any(held is not None and take_over(spec, run_folder / key, arguments.output_folder))
        if not complete:
            attempt = store.count_attempt(run_folder / key) if held is not None else 0
            complete = train(
                spec,
                *folders,
                stop=stop,
                start=arguments.start,
                tokenizer_folder=arguments.tokenizer_folder,
                run_sinks=run_sinks,
                ranks=ranks,
                held=held,
                attempt=attempt,
            )
        if complete and held is not None:
            if arguments.adopt:
                store.remove_checkpoints(run_folder / key)
            else:
                shutil.rmtree(run_folder / key, ignore_errors=True)
    if not complete:
        if stop.received is not None:
            log(f"{run_name(spec)}: {stop.received.name} received; saved, and the same command resumes the run")
        sys.exit(STOPPED)


def hold(
    run_folder: pathlib.Path, spec: RunSpec, stop: StopRequest, *, wait: bool
) -> contextlib.AbstractContextManager[lock.Held | None]:
    """Hold the run's lock in its main process. Its other processes wait until it does, and get None."""

    def tell(other: str) -> None:
        log(f"{run_name(spec)}: {other}, trains this run; this one waits for it, and takes over what it has done")

    if int(os.environ.get("RANK", 0)) > 0:
        return lock.follow(run_folder, stop.__bool__)
    return lock.exclusive(run_folder, made_by(spec), wait=tell if wait else None, should_stop=stop.__bool__)


def take_over(spec: RunSpec, checkpoint_folder: pathlib.Path, output_folder: pathlib.Path) -> bool:
    """Put the files of a run that an earlier attempt has finished into the run's folder; False if there are none."""
    folder = checkpoint_folder / FINISHED
    if not run_results.is_of(folder, spec):
        return False
    damage = run_results.damage(folder)
    if damage:
        log(f"{folder}: damaged ({damage}); the run is trained again")
        return False
    run_results.give(folder, output_folder, SOMETIMES)
    log(f"{run_name(spec)}: an earlier attempt has finished it; its files are put back")
    return True


def fill_in_paths(arguments: argparse.Namespace, spec: RunSpec) -> None:
    """Derive missing paths from the spec's place. Raises ValueError if the spec is not in a study's results."""
    needed = ["mixture_folder", "output_folder", "checkpoint_folder"]
    needed += ["start"] if spec.start.origin_options() is not None else []
    options = [f"--{name.replace('_', '-')}" for name in needed if vars(arguments)[name] is None]
    paths = functools.cache(lambda: run_paths(arguments.spec, spec, options))
    arguments.mixture_folder = arguments.mixture_folder or paths().mixture
    arguments.output_folder = arguments.output_folder or paths().home / "runs" / spec.ablation / f"seed{spec.seed}"
    arguments.checkpoint_folder = arguments.checkpoint_folder or paths().home / "checkpoints"
    if spec.start.origin_options() is not None and arguments.start is None:
        arguments.start = paths().start
    if arguments.tokenizer_folder is None:
        try:
            arguments.tokenizer_folder = run_paths(arguments.spec, spec, ["--tokenizer-folder"]).tokenizer
        except ValueError as error:  # the run can be trained without it
            log(f"{run_name(spec)}: the run's folder will hold no tokenizer: {error}")
    check_tokenizer(arguments.mixture_folder, arguments.tokenizer_folder)
    if arguments.sink_folder is None:
        arguments.sink_folder = paths().home / "sinks" if arguments.sink else arguments.output_folder


def check_tokenizer(mixture_folder: pathlib.Path, tokenizer_folder: pathlib.Path | None) -> None:
    """Raise ValueError if the tokenizer is not the one that encoded the mixture."""
    if tokenizer_folder is None:
        return
    mixture = json.loads((mixture_folder / "mixture.json").read_text(encoding="utf-8"))
    if read_manifest(tokenizer_folder).fingerprint != mixture["tokenizer_fingerprint"]:
        raise ValueError(f"--tokenizer-folder: {tokenizer_folder} is not the tokenizer that encoded {mixture_folder}")


def run_identity(spec: RunSpec, mixture_folder: pathlib.Path, start: pathlib.Path | None = None) -> Identity:
    """Return what a checkpoint must agree with to be resumed, besides the code: spec, data, vocabulary and start."""
    mixture = json.loads((mixture_folder / "mixture.json").read_text(encoding="utf-8"))
    vocabulary = {"tokens": mixture["vocabulary"], "tokenizer": mixture["tokenizer_fingerprint"]}
    return identify(spec, mixture_folder, vocabulary, start)


def train(
    spec: RunSpec,
    mixture_folder: pathlib.Path,
    output_folder: pathlib.Path,
    checkpoint_folder: pathlib.Path,
    *,
    stop: StopRequest,
    start: pathlib.Path | None = None,
    tokenizer_folder: pathlib.Path | None = None,
    run_sinks: Sinks | None = None,
    ranks: Ranks = ALONE,
    held: lock.Held | None = None,
    attempt: int = 1,
) -> bool:
    """Train one run and write its files; return False if it was stopped before its end. Each of `ranks` calls it.

    `held` is the lock that this process holds, and `attempt` says how often the training has been begun or resumed.

    Raises:
        FailedRun: the run failed for a numerical reason, and its spec makes that an error.
        ValueError: the run cannot begin, or its checkpoints are damaged or another run's; the message says which.
    """
    timer = PhaseTimer()
    blocks, identity = open_blocks(spec, mixture_folder), run_identity(spec, mixture_folder, start)
    state = initial_state(spec, blocks.vocabulary, start, ranks)
    groups = param_groups.describe_groups(state.optimizer, state.model)
    if ranks.is_main:
        log(f"{run_name(spec)}: {param_groups.summarise_groups(groups)}")
    warn = log if ranks.is_main else lambda text: None
    resumed = store.restore(checkpoint_folder, state, ranks=ranks, identity=identity, log=warn)
    if resumed and ranks.is_main:
        log(f"{run_name(spec)}: resumes at step {state.step}")
    progress = Progress.of(spec, state, blocks.block_length, ranks)
    run_sinks = run_sinks or Sinks((), output_folder, spec, log)
    snapshots = Snapshots(output_folder, spec.training, ranks)
    snapshots.start(state)

    def report(state: State, step_metrics: dict[str, float]) -> None:
        if ranks.is_main:
            progress(state, step_metrics)
            run_sinks.send(state)

    def save(state: State) -> None:
        check(held)
        save_checkpoint(checkpoint_folder, state, ranks=ranks, identity=identity, keep=spec.training.keep_last)

    failure: FailedRun | None = None
    read, num_steps = batch_reader(spec, blocks, ranks), spec.training.num_steps
    with run_sinks.open(state), BatchPrefetcher.for_device(ranks.device, read, num_steps) as batches:
        context = build_context(spec, blocks, mixture_folder, state=state, batches=batches, ranks=ranks)
        try:
            run_files.check_start(start)
            complete = loop.train(
                context,
                state,
                save=save,
                should_stop=ranks.any_stops(stop.__bool__),
                on_snapshot=snapshots.save_if_due,
                on_step_end=report,
                timer=timer,
            )
        except FailedRun as error:
            complete, failure = True, error
    if not complete:
        return False
    if ranks.sharded:
        sharded.gather_shards(state, spec, blocks.vocabulary)
    metadata = run_files.run_size(spec, state, blocks) | environment(ranks, attempt) | {"optimizer": groups}
    metadata["precision"] = precision.computed_in(spec.training, ranks.device)
    metadata |= {part: identity[part] for part in ("data", "vocabulary")} | {"made_by": made_by(spec)}
    run_timing = timing(timer, progress, state.step)
    if failure is not None and spec.training.on_failure == "stop":
        if ranks.is_main:
            run_files.write_failure(output_folder, failure)
        raise failure
    if ranks.is_main:
        check(held)
        hidden = run_results.prepare(checkpoint_folder)
        run_files.write_tokenizer(hidden / TOKENIZER, tokenizer_folder)
        write_results(hidden, spec, state, metadata=metadata, run_timing=run_timing, failure=failure)
        check(held)
        run_results.give(run_results.keep(hidden), output_folder, SOMETIMES)
        tell_end(spec, output_folder, run_timing, failure)
    return True


def check(held: lock.Held | None) -> None:
    """Raise TemporaryError if another process has taken this one's lock."""
    if held is not None:
        held.check()


def write_results(
    folder: pathlib.Path,
    spec: RunSpec,
    state: State,
    *,
    metadata: dict[str, Any],
    run_timing: dict[str, Any],
    failure: FailedRun | None,
) -> None:
    """Write the files of a run that has ended."""
    run_files.write_failure(folder, failure)
    metadata = metadata | run_files.outcome(state, failure)
    run_files.write_spec(folder, spec)
    run_files.write(folder, state, spec.training, metadata=metadata, timing=run_timing)


def tell_end(spec: RunSpec, output_folder: pathlib.Path, run_timing: dict[str, Any], failure: FailedRun | None) -> None:
    """Log how a run has ended."""
    if failure is not None:
        place = output_folder / run_files.FAILURE
        log(f"{run_name(spec)}: FAILED: {failure}; the study goes on without this run, see {place}")
    else:
        speed = f"{run_timing['tokens_per_second']:,.0f} tokens/s"
        log(f"{run_name(spec)}: done, {speed}, {run_timing['wall_seconds']:.0f} s")


def save_checkpoint(folder: pathlib.Path, state: State, *, ranks: Ranks, identity: Identity, keep: int) -> None:
    """Save a checkpoint: of an fsdp run each process writes its shards, and rank 0 writes everything else."""
    state.rng_states = ranks.rng_states()
    if ranks.fsdp:
        state.shards = folder / ".shards"
        sharded.save_sharded(state.shards, sharded.named_tensors(state), ranks)
    if ranks.is_main:
        store.save(folder, state, identity, keep)
    ranks.barrier()
