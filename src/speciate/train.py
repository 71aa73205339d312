"""train: one run, from its spec and a mixture, to weights, metrics and telemetry.

Stopped by SIGTERM, SIGINT or SIGUSR1 it finishes the step, saves and exits 75; the same command continues it, with the
same bits as if it had never stopped.
"""

import argparse
import functools
import json
import pathlib
import platform
import resource
import shutil
import sys
import time

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import torch

from speciate.data.blocks import TrainBlocks, read_set
from speciate.data.sampler import block_rows
from speciate.kinds import component
from speciate.model.transformer import Transformer, count_parameters
from speciate.places import surroundings
from speciate.provenance import digest, sha256, short_digest
from speciate.spec import RunSpec, dump, read_spec
from speciate.training import arithmetic, checkpoint, groups, loop, sinks
from speciate.training.average import Average
from speciate.training.checkpoint import EMA, State
from speciate.training.observe import Observer
from speciate.training.signals import STOPPED, StopRequest
from speciate.training.sinks import Sinks
from speciate.verb import run as run_verb
from speciate.verb import say, writing

SECONDS_BETWEEN_LINES = 5.0


def main() -> None:
    """Parses the command line, trains, writes."""
    parser = argparse.ArgumentParser(prog="speciate.train", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the run's spec.json")
    parser.add_argument("--mixture-folder", type=pathlib.Path, help="what the balance stage wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, help="where the run's files go")
    parser.add_argument("--checkpoint-folder", type=pathlib.Path, help="where an unfinished run is kept, for a retry")
    parser.add_argument("--start", type=pathlib.Path, help="what the run starts from, where it does not from scratch")
    parser.add_argument(
        "--sink",
        action="append",
        default=sinks.from_environment(),
        help="where metrics go besides metrics.jsonl: tensorboard, trackio, wandb; again for one more",
    )
    parser.add_argument("--sink-folder", type=pathlib.Path, help="where sinks keep their files")
    parser.epilog = (
        "A path that is left out is told from the spec's own place, results/<study>/runs/<ablation>/seed<k>."
    )
    arguments = parser.parse_args()
    spec = read_spec(RunSpec, arguments.spec)
    complete(arguments, spec)
    identity = identify(spec, arguments.mixture_folder, arguments.start)
    checkpoints = arguments.checkpoint_folder / f"{spec.ablation}-seed{spec.seed}-{identity}"
    torch.set_num_threads(spec.training.threads)
    stop = StopRequest()
    watched = Sinks([sinks.parse(text) for text in arguments.sink], arguments.sink_folder, spec, say)
    places = (arguments.mixture_folder, arguments.output_folder, checkpoints)
    with checkpoint.exclusive(checkpoints), arithmetic.determinism(spec.training):
        if not train(spec, *places, stop, arguments.start, watched):
            assert stop.received is not None
            say(f"{name(spec)}: {stop.received.name} received; saved, and the same command continues it")
            sys.exit(STOPPED)
    shutil.rmtree(checkpoints)


def name(spec: RunSpec) -> str:
    """A run as a reader names it."""
    return f"{spec.ablation} seed {spec.seed}"


def complete(arguments: argparse.Namespace, spec: RunSpec) -> None:
    """Fills in the paths that were left out. Raises ValueError where they cannot be told from the spec's place."""
    around = functools.cache(lambda: surroundings(arguments.spec, spec))
    arguments.mixture_folder = arguments.mixture_folder or around().mixture
    arguments.output_folder = arguments.output_folder or around().home / "runs" / spec.ablation / f"seed{spec.seed}"
    arguments.checkpoint_folder = arguments.checkpoint_folder or around().home / "checkpoints"
    if hasattr(spec.start, "origin") and arguments.start is None:
        arguments.start = around().start
    if arguments.sink_folder is None:
        arguments.sink_folder = around().home / "sinks" if arguments.sink else arguments.output_folder


def identify(spec: RunSpec, mixture_folder: pathlib.Path, start: pathlib.Path | None = None) -> str:
    """What a checkpoint may continue: the same spec, code, data and start."""
    data = [sha256(mixture_folder / file) for file in ("mixture.json", "train.npy", "probe.tokens.npy")]
    given = [] if start is None else sorted(start.glob("*")) if start.is_dir() else [start]
    data += [sha256(file) for file in given if file.is_file()]
    return short_digest(dump(spec), digest("train", spec), *data)


def build(spec: RunSpec, vocabulary: int, start: pathlib.Path | None = None) -> Transformer:
    """The run's model with its initial weights, which depend on the seed and on what it starts from alone."""
    torch.manual_seed(spec.seed)
    model = Transformer(spec.model, vocabulary)
    component(spec.start).begin(spec.start, model, spec, start)
    return model


def train(
    spec: RunSpec,
    mixture_folder: pathlib.Path,
    output_folder: pathlib.Path,
    checkpoints: pathlib.Path,
    stop: StopRequest,
    start: pathlib.Path | None = None,
    watched: Sinks | None = None,
) -> bool:
    """Trains one run and writes its files; False when it was stopped before its end."""
    started_wall, started_cpu = time.monotonic(), time.process_time()
    blocks = TrainBlocks(mixture_folder)
    settings = spec.training
    if len(blocks) < settings.blocks_per_step:
        raise ValueError(
            f"run {name(spec)}: the mixture has {len(blocks)} blocks, a step needs {settings.blocks_per_step}"
        )
    model = build(spec, blocks.vocabulary, start)
    objective = component(spec.objective).Objective(spec.objective)
    optimizer = component(spec.optimizer).build(spec.optimizer, model)
    split = groups.describe(optimizer, model)
    say(f"{name(spec)}: {groups.summary(split)}")
    arithmetic.prepare(settings, model)
    schedule = component(spec.schedule)

    def rows(step: int) -> npt.NDArray[np.int64]:
        return block_rows(spec.seed, step, settings.blocks_per_step, len(blocks))

    def documents(step: int) -> torch.Tensor:
        return torch.from_numpy(blocks.documents(rows(step)))

    run = loop.Run(
        spec=spec,
        objective=objective,
        factor=lambda step: float(schedule.factor(spec.schedule, step, settings.num_steps)),
        tokens=lambda step: torch.from_numpy(blocks.tokens(rows(step))),
        observer=Observer(spec.telemetry, read_set(mixture_folder, "probe"), read_set(mixture_folder, "validation")),
        documents=documents if spec.model.separate_documents else None,
    )
    average = Average(model, settings.ema, settings.ema_warmup) if settings.ema is not None else None
    state = State(step=0, model=model, optimizer=optimizer, metrics=[], telemetry={}, average=average)
    if checkpoint.restore(checkpoints, state):
        say(f"{name(spec)}: continues from step {state.step}")
    clock = loop.Clock()
    tokens_a_step = settings.blocks_per_step * blocks.block_length
    progress = Progress(spec, state.step, tokens_a_step)
    watched = watched or Sinks((), checkpoints, spec, say)

    def follow(state: State, happened: dict[str, float]) -> None:
        progress(state, happened)
        watched.follow(state)

    with watched.opened(state):
        ended = loop.train(run, state, lambda saved: checkpoint.save(checkpoints, saved), stop.__bool__, follow, clock)
    if not ended:
        return False
    total, active = count_parameters(model)
    facts = {
        "ablation": spec.ablation,
        "seed": spec.seed,
        "parameters_total": total,
        "parameters_active": active,
        "num_steps": settings.num_steps,
        "train_tokens": settings.num_steps * tokens_a_step,
        "epochs": settings.num_steps * settings.blocks_per_step / len(blocks),
        "optimizer": split,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    timing = {
        "wall_seconds": time.monotonic() - started_wall,
        "cpu_seconds": time.process_time() - started_cpu,
        "cpu_seconds_by_part": clock.seconds,
        "tokens_per_second": progress.tokens_per_second(state.step),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    write(output_folder, state, facts, timing)
    say(f"{name(spec)}: done, {timing['tokens_per_second']:,.0f} tokens/s, {timing['wall_seconds']:.0f} s")
    return True


def write(output_folder: pathlib.Path, state: State, facts: dict[str, object], timing: dict[str, object]) -> None:
    """Writes a finished run's files."""
    with writing(output_folder / "model.safetensors") as aside:
        checkpoint.save_weights(state.model, aside)
    # of a run without an average none is left from an earlier one
    (output_folder / EMA).unlink(missing_ok=True)
    if state.average is not None:
        with writing(output_folder / EMA) as aside:
            checkpoint.save_weights(state.model, aside, state.average)
    with writing(output_folder / "metrics.jsonl") as aside:
        aside.write_text("".join(state.metrics), encoding="utf-8")
    with writing(output_folder / "telemetry.safetensors") as aside:
        safetensors.numpy.save_file(state.telemetry or {"steps": np.zeros(0, dtype=np.int64)}, aside)
    for file, content in (("run.json", facts), ("timing.json", timing)):
        with writing(output_folder / file) as aside:
            aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """What computed this run; the torch version names its build."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


class Progress:
    """A line every few seconds: step, loss, tokens a second, time left."""

    def __init__(self, spec: RunSpec, first_step: int, tokens_a_step: int) -> None:
        self.spec, self.first_step, self.tokens_a_step = spec, first_step, tokens_a_step
        self.started = self.last = time.monotonic()

    def tokens_per_second(self, step: int) -> float:
        """Mean since this process began to train."""
        return (step - self.first_step) * self.tokens_a_step / max(time.monotonic() - self.started, 1e-9)

    def __call__(self, state: State, happened: dict[str, float]) -> None:
        """Prints a line if the last one is old enough, or the run ends."""
        now, num_steps = time.monotonic(), self.spec.training.num_steps
        if now - self.last < SECONDS_BETWEEN_LINES and state.step < num_steps:
            return
        self.last = now
        tokens = self.tokens_per_second(state.step)
        left = (num_steps - state.step) * self.tokens_a_step / tokens
        say(
            f"{name(self.spec)}: step {state.step}/{num_steps}, loss {happened['loss']:.3f}, "
            f"{tokens:,.0f} tokens/s, {left // 60:.0f}:{left % 60:02.0f} left"
        )


if __name__ == "__main__":
    run_verb(main)
