"""Train one run, kill it again and again, and let it resume: `python killed.py SPEC MIXTURE FOLDER SEED`.

This process imports torch but runs nothing itself: each training is a fork of it and therefore starts at once. A
training counts its calls of Python and C functions from the moment it first enters a given place. It is killed at a
randomly drawn call, so nothing depends on the clock. In the middle of a file the kernel kills it: the kernel sends
SIGXFSZ when a write passes the limit of a file's size. The first training runs undisturbed and reports how many calls
there are.

Print, as JSON, how each training ended and where it was killed.
"""

import functools
import json
import os
import pathlib
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch

from speciate import cli
from speciate.config.run import RunSpec, read_spec
from speciate.graph.provenance import digest
from speciate.stages import train
from speciate.training import loop
from speciate.training.checkpoint import store
from speciate.training.distributed.ranks import ALONE
from speciate.training.logs import run_files
from speciate.training.prepare import initial_state

PLACES = {"training": (train, "train"), "saving": (store, "save"), "ending": (run_files, "write")}
STEPS = 4
"""Number of steps of a training in which it is killed."""
KILLS = [
    *[(signal.SIGKILL, "training")] * 5,
    *[(signal.SIGTERM, "training")] * 4,
    *[(signal.SIGKILL, "saving")] * 3,
    *[(signal.SIGTERM, "saving")] * 4,
    *[(signal.SIGXFSZ, "saving")] * 2,
]
LAST = [(signal.SIGKILL, "ending")] * 2
REPORTS = 3
"""File descriptor by which a training reports what happened."""


def report(what: Any) -> None:
    os.write(REPORTS, json.dumps(what).encode())


def around(place: tuple[Any, str], begun: Callable[[], None], ended: Callable[..., None]) -> None:
    """Call these functions before and after each call of a module's function."""
    module, name = place
    function = getattr(module, name)

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> Any:
        begun()
        result = function(*given, **named)
        ended(*given)
        return result

    setattr(module, name, called)


class Kill:
    """Send a signal at the `at`-th call after entering `place`, or when a file would grow beyond `at` bytes."""

    def __init__(self, number: signal.Signals, place: str, at: int) -> None:
        self.number, self.at, self.calls = number, at, 0
        begun = self.limit if number == signal.SIGXFSZ else lambda: sys.setprofile(self.count)
        around(PLACES[place], begun, lambda *given: None)

    def count(self, frame: FrameType, event: str, what: Any) -> None:
        self.calls += event in ("call", "c_call")
        if self.calls == self.at:
            sys.setprofile(None)
            self.calls += 1
            report(frame.f_code.co_qualname if event == "call" else what.__name__)
            os.kill(os.getpid(), self.number)

    def limit(self) -> None:
        report(f"{self.at} bytes")
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.at, self.at))


class Measure:
    """Count the calls of the first steps, of a save and of the end, and the bytes of a checkpoint's longest file."""

    def __init__(self) -> None:
        self.calls, self.steps, self.before = 0, 0, 0
        self.found: dict[str, int] = {}
        around(PLACES["training"], lambda: sys.setprofile(self.count), lambda *given: report(self.found))
        around((loop, "train_step"), lambda: None, self.updated)
        around(PLACES["saving"], self.mark, self.saved)
        around(PLACES["ending"], self.marked, self.written)

    def count(self, frame: FrameType, event: str, what: Any) -> None:
        self.calls += event in ("call", "c_call")

    def mark(self) -> None:
        self.before = self.calls

    def marked(self) -> None:
        self.before = self.calls
        sys.setprofile(self.count)

    def updated(self, *given: Any) -> None:
        self.steps += 1
        if self.steps == STEPS:
            sys.setprofile(None)
            self.found["training"] = self.calls

    def saved(self, folder: pathlib.Path, *given: Any) -> None:
        self.found.setdefault("saving", self.calls - self.before)
        self.found["bytes"] = max(file.stat().st_size for file in folder.glob("step*/*"))

    def written(self, *given: Any) -> None:
        sys.setprofile(None)
        self.found["ending"] = self.calls - self.before


def trained(arguments: list[str], log: pathlib.Path, prepare: Callable[[], object]) -> tuple[int, Any]:
    """Train in a fork of this process; return its exit status and what it reported."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        with os.fdopen(reading, "rb") as reports:
            told = reports.read()  # read until the training has ended
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), json.loads(told or "null")
    status = 1
    try:
        os.dup2(writing, REPORTS)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        prepare()
        cli.main(["train", *arguments])
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> None:
    """Let one training end, then kill the others."""
    spec, mixture, folder = (pathlib.Path(text) for text in sys.argv[1:4])
    draw, log = random.Random(int(sys.argv[4])), folder / "log"
    torch.set_num_threads(1)
    # import here what every training would otherwise import and read again
    digest("train", read_spec(RunSpec, spec))
    initial_state(read_spec(RunSpec, spec), 64, None, ALONE)

    def given(name: str) -> list[str]:
        paths = {"spec": spec, "mixture-folder": mixture, "output-folder": folder / name}
        paths["checkpoint-folder"] = folder / f"{name}-checkpoints"
        return [word for option, path in paths.items() for word in (f"--{option}", str(path))]

    status, size = trained(given("whole"), log, Measure)
    assert status == 0, log.read_text()
    draw.shuffle(KILLS)
    ended = []
    for number, place in KILLS + LAST:
        at = draw.randrange(1, size["bytes" if number == signal.SIGXFSZ else place])
        status, where = trained(given("parts"), log, functools.partial(Kill, number, place, at))
        ended.append({"signal": number.name, "place": place, "at": at, "status": status, "where": where})
    status, _ = trained(given("parts"), log, lambda: None)
    print(json.dumps({"size": size, "ended": ended, "last": status}))


if __name__ == "__main__":
    main()
