"""train: one run, from its spec and a mixture, to weights, metrics and telemetry.

Stopped by SIGTERM, SIGINT or SIGUSR1 it finishes the step, saves and exits 75; the same command continues it, with the
same bits as if it had never stopped.
"""

import argparse
import json
import pathlib
import platform
import resource
import shutil
import sys
import time

import numpy as np
import safetensors
import safetensors.numpy
import torch

from speciate.data.blocks import TrainBlocks, read_set
from speciate.data.sampler import block_rows
from speciate.kinds import component
from speciate.model.transformer import Transformer, count_parameters
from speciate.provenance import digest, sha256, short_digest
from speciate.spec import RunSpec, dump, read_spec
from speciate.training import checkpoint, loop
from speciate.training.checkpoint import State
from speciate.training.observe import Observer
from speciate.training.signals import STOPPED, StopRequest
from speciate.verb import run as run_verb
from speciate.verb import say, writing

SECONDS_BETWEEN_LINES = 5.0


def main() -> None:
    """Parses the command line, trains, writes."""
    parser = argparse.ArgumentParser(prog="speciate.train", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the run's spec.json")
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what the balance stage wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where the run's files go")
    parser.add_argument(
        "--checkpoint-folder", type=pathlib.Path, required=True, help="where an unfinished run is kept, for a retry"
    )
    arguments = parser.parse_args()
    spec = read_spec(RunSpec, arguments.spec)
    identity = identify(spec, arguments.mixture_folder)
    checkpoints = arguments.checkpoint_folder / f"{spec.ablation}-seed{spec.seed}-{identity}"
    torch.set_num_threads(spec.training.threads)
    stop = StopRequest()
    with checkpoint.exclusive(checkpoints):
        if not train(spec, arguments.mixture_folder, arguments.output_folder, checkpoints, stop):
            assert stop.received is not None
            say(f"{name(spec)}: {stop.received.name} received; saved, and the same command continues it")
            sys.exit(STOPPED)
    shutil.rmtree(checkpoints)


def name(spec: RunSpec) -> str:
    """A run as a reader names it."""
    return f"{spec.ablation} seed {spec.seed}"


def identify(spec: RunSpec, mixture_folder: pathlib.Path) -> str:
    """What a checkpoint may continue: the same spec, code and data."""
    data = [sha256(mixture_folder / file) for file in ("mixture.json", "train.npy", "probe.tokens.npy")]
    return short_digest(dump(spec), digest("train", spec), *data)


def build(spec: RunSpec, vocabulary: int) -> Transformer:
    """The run's model with its initial weights, which depend on the seed alone."""
    torch.manual_seed(spec.seed)
    return Transformer(spec.model, vocabulary)


def train(
    spec: RunSpec,
    mixture_folder: pathlib.Path,
    output_folder: pathlib.Path,
    checkpoints: pathlib.Path,
    stop: StopRequest,
) -> bool:
    """Trains one run and writes its files; False when it was stopped before its end."""
    started_wall, started_cpu = time.monotonic(), time.process_time()
    blocks = TrainBlocks(mixture_folder)
    settings = spec.training
    if len(blocks) < settings.blocks_per_step:
        raise ValueError(
            f"run {name(spec)}: the mixture has {len(blocks)} blocks, a step needs {settings.blocks_per_step}"
        )
    model = build(spec, blocks.vocabulary)
    objective = component(spec.objective).Objective(spec.objective)
    optimizer = component(spec.optimizer).build(spec.optimizer, model)
    schedule = component(spec.schedule)

    def tokens(step: int) -> torch.Tensor:
        rows = block_rows(spec.seed, step, settings.blocks_per_step, len(blocks))
        return torch.from_numpy(blocks.tokens(rows))

    run = loop.Run(
        spec=spec,
        objective=objective,
        factor=lambda step: float(schedule.factor(spec.schedule, step, settings.num_steps)),
        tokens=tokens,
        observer=Observer(spec.telemetry, read_set(mixture_folder, "probe"), read_set(mixture_folder, "validation")),
    )
    state = State(step=0, model=model, optimizer=optimizer, metrics=[], telemetry={})
    if checkpoint.restore(checkpoints, state):
        say(f"{name(spec)}: continues from step {state.step}")
    clock = loop.Clock()
    tokens_a_step = settings.blocks_per_step * blocks.block_length
    progress = Progress(spec, state.step, tokens_a_step)
    if not loop.train(run, state, lambda saved: checkpoint.save(checkpoints, saved), stop.__bool__, progress, clock):
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
