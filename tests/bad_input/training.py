"""Define what can go wrong in training: two at once, bad checkpoints, changed inputs, a full disk, no memory."""

import contextlib
import json
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.bad_input import small
from tests.bad_input.case import Case, Place, separately
from tests.bad_input.small import Command, Ended

from speciate.cli import FAILED_FOR_NOW
from speciate.training.checkpoint import lock

STOP = {"speciate.training.distributed.signals.StopRequest.__bool__": lambda self: True}
"""Make a training stop after its first step; a second such training makes a second checkpoint."""
RUN = "checkpoints/learned-seed0"
MODEL = {
    "width": 16,
    "num_layers": 1,
    "context": 32,
    "block": {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": {"kind": "dense", "hidden": 16}, "depth": "every"},
}


def begin(place: Place, **training: object) -> Command:
    """Return the command of a small training on the data stages' mixture."""
    place.stages("balance")
    settings = {"num_steps": 4, "blocks_per_step": 2, "device": "cpu", **training}
    spec = place.spec(
        ablation="learned",
        seed=0,
        model=MODEL,
        objective="causal",
        schedule="constant",
        optimizer={"kind": "adamw", "lr": 0.01},
        training=settings,
        telemetry={"probe_blocks": 1},
    )
    mixture = place.file("results/data/balance/mixture-*/mixture.json").parent.relative_to(place.folder)
    given = ("--spec", spec, "--mixture-folder", str(mixture), "--output-folder", "out")
    return Command("train", (*given, "--checkpoint-folder", "checkpoints"))


def here(place: Place, command: Command, changed: dict[str, Any] | None = None) -> Ended:
    """Train in this process with some functions changed; restore the signal handlers afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as after:
        for number, handler in handlers.items():
            after.callback(signal.signal, number, handler)
        for name, function in (changed or {}).items():
            patch.setattr(name, function)
        return small.call(command)


def stopped(harm: Callable[[Place], object], **training: object) -> Callable[[Place], Command]:
    """Stop a training twice, so that it has two checkpoints, and then damage it."""

    def make(place: Place) -> Command:
        command = begin(place, **training)
        for _ in range(2):
            with small.within(place.folder):
                done = here(place, command, STOP)
            assert done.status == 75, done.said
        harm(place)
        return command

    return make


def steps(place: Place) -> list[pathlib.Path]:
    """Return the training's checkpoints, the oldest first."""
    return sorted(place.folder.glob(f"{RUN}/*/step*"))


def spoil(file: pathlib.Path) -> None:
    """Change the last byte."""
    file.write_bytes(file.read_bytes()[:-1] + b"?")


def spec(key: str, value: object) -> Callable[[Place], None]:
    """Change a key of the spec's training."""

    def harm(place: Place) -> None:
        read = json.loads((place.folder / "spec.json").read_text())
        read["training"][key] = value
        (place.folder / "spec.json").write_text(json.dumps(read))

    return harm


def mixture(key: str, value: object) -> Callable[[Place], None]:
    """Change the mixture's facts."""

    def harm(place: Place) -> None:
        file = place.file("results/data/balance/mixture-*/mixture.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))

    return harm


def beside(place: Place, command: Command) -> Ended:
    """Run the training while another process holds the run."""
    with lock.exclusive(place.folder / RUN):
        return here(place, command)


def after(changed: dict[str, Any]) -> Callable[[Place, Command], Ended]:
    """Run the training with functions changed."""
    return lambda place, command: here(place, command, changed)


def not_finite(self: Any, model: Any, *given: Any) -> Any:
    """Return an infinite loss for an objective."""
    return model.hidden(*given).sum() * float("inf")


def no_memory(self: Any, *given: Any) -> Any:
    """Raise what the system raises for a process that asks for too much memory."""
    raise MemoryError("no room")


LOSS = "speciate.training.objective.causal.Objective.forward"
# lines of Python for a separate process
STOPPING = "from speciate.training.distributed import signals; signals.StopRequest.__bool__ = lambda self: True"
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
DIE = "import os, signal; os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)"
CHANGED = "learned seed 0: starts from scratch: "
SINCE = ", since the checkpoint of step 2, which stays in checkpoints/learned-seed0/KEY"


def killed(place: Place, command: Command) -> Ended:
    """Kill the training during a save; the earlier checkpoint must remain, and the same command must finish the run."""
    done = separately(place, command, f"{STOPPING}\n{DIE}")
    assert done.status == -9, done.said
    assert [step.name for step in steps(place)] == ["step1", "step2"]
    done = here(place, command)
    assert "resumes at step 2" in done.said
    return done


def full(place: Place, command: Command) -> Ended:
    """Save with a limit on the size of files; the earlier checkpoints must remain."""
    done = separately(place, command, f"{STOPPING}\n{FULL}")
    assert [step.name for step in steps(place)] == ["step1", "step2"]
    return done


def case(wrong: str, make: Callable[[Place], Command], says: str, **more: object) -> Case:
    """Make a case of this area."""
    return Case("Training", wrong, make, says, alone=False, **{"run": here, **more})  # type: ignore[arg-type]


CASES = [
    case(
        "two trainings of one run",
        stopped(lambda place: None),
        "checkpoints/learned-seed0: another process is training this run; wait for it or end it",
        run=beside,
    ),
    case(
        "the newest checkpoint is damaged",
        stopped(lambda place: spoil(steps(place)[-1] / "model.safetensors")),
        "checkpoints/learned-seed0/KEY: damaged checkpoint (step2: model.safetensors changed); falling back to step1",
        status=0,
    ),
    case(
        "a file of the newest checkpoint is gone",
        stopped(lambda place: (steps(place)[-1] / "train_state.pt").unlink()),
        "checkpoints/learned-seed0/KEY: damaged checkpoint (step2: train_state.pt: No such file or directory);"
        " falling back to step1",
        status=0,
    ),
    case(
        "every checkpoint is damaged",
        stopped(lambda place: [spoil(step / "metrics.jsonl") for step in steps(place)]),
        "checkpoints/learned-seed0/KEY: no checkpoint is intact (step2: metrics.jsonl changed; step1: metrics.jsonl"
        " changed); remove the folder to start from scratch",
    ),
    case(
        "the spec of an unfinished run has changed",
        stopped(spec("num_steps", 5)),
        f"{CHANGED}spec: training.num_steps is 5, was 4{SINCE}",
        status=0,
    ),
    case(
        "the mixture of an unfinished run has changed",
        stopped(mixture("warnings", ["another"])),
        f"{CHANGED}data: mixture.json has other content{SINCE}",
        status=0,
    ),
    case(
        "the vocabulary of an unfinished run has changed",
        stopped(mixture("tokenizer_fingerprint", "another")),
        f"{CHANGED}vocabulary: tokenizer is 'another', was 'SHA256'; data: mixture.json has other content{SINCE}",
        status=0,
    ),
    case(
        "the loss is not finite",
        lambda place: begin(place, on_failure="stop"),
        "run learned, seed 0: step 0: loss WHY, auxiliary 0.0, gradient norm nan; every module's"
        " output is finite, so the loss or the gradient is the first that is not; no update was made",
        run=after({LOSS: not_finite}),
    ),
    case(
        "the same, in a study that goes on",
        begin,
        "learned seed 0: FAILED: run learned, seed 0: step 0: loss WHY, auxiliary 0.0, gradient norm nan; every"
        " module's output is finite, so the loss or the gradient is the first that is not; no update was made; the"
        " study goes on without this run, see"
        " out/failure.json",
        status=0,
        run=after({LOSS: not_finite}),
    ),
    case(
        "memory runs out",
        begin,
        "run learned, seed 0: step 0: out of memory (no room): raise training.grad_accumulation from 1 to 2 (the same"
        " step in smaller micro-batches); or set training.oom_retry, which does so by itself; set"
        " training.activation_checkpointing (the same bits, slower); lower training.blocks_per_step from 2 (a different"
        " run)",
        status=FAILED_FOR_NOW,
        run=after({LOSS: no_memory}),
    ),
    case(
        "the disk is full while it saves; what was saved before stays",
        stopped(lambda place: None),
        "the disk is full: checkpoints/learned-seed0/KEY/.step3 (File too large)",
        run=full,
    ),
    case(
        "killed while it saves; run again, it continues",
        stopped(lambda place: None),
        "learned seed 0: resumes at step 2",
        status=0,
        run=killed,
    ),
]
