"""Trains one run, kills it again and again, and lets it go on: `python killed.py SPEC MIXTURE FOLDER SEED KILLS`.

A process of its own that has imported torch and run nothing: each training is a fork of it, so that it begins at once.
Prints, as JSON, how each ended.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

import torch

from speciate import train, verb
from speciate.provenance import digest
from speciate.spec import RunSpec, read_spec
from speciate.training.distributed import ALONE

PLACES = ("while saving", "between")


def begin(arguments: list[str], log: pathlib.Path, syncs: int | None, number: signal.Signals) -> int:
    """Forks a training; it sends itself a signal at its `syncs`-th fsync, in the middle of a save. The process id."""
    process = os.fork()
    if process:
        return process
    with log.open("ab") as said:
        os.dup2(said.fileno(), 2)
    left, sync = syncs, os.fsync

    def counted(descriptor: int) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)
        sync(descriptor)

    os.fsync = counted
    sys.argv = ["train.py", *arguments]
    status = 0
    try:
        verb.run(train.main)
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os._exit(status)


def main() -> None:
    """Kills `KILLS` times with each signal, then lets the run end."""
    spec, mixture, folder = (pathlib.Path(text) for text in sys.argv[1:4])
    draw, kills = random.Random(int(sys.argv[4])), int(sys.argv[5])
    torch.set_num_threads(1)
    # what every training would otherwise import and read anew
    digest("train", read_spec(RunSpec, spec))
    train.begin(read_spec(RunSpec, spec), 64, None, ALONE)
    arguments = ["--spec", str(spec), "--mixture-folder", str(mixture), "--output-folder", str(folder / "run")]
    arguments += ["--checkpoint-folder", str(folder / "checkpoints")]
    plan = [(number, place) for number in (signal.SIGKILL, signal.SIGTERM) for place in PLACES] * (kills // 2)
    draw.shuffle(plan)
    ended = []
    for number, place in plan:
        # a save syncs seven times: a save or two in, at any point of it
        syncs = draw.randrange(1, 15) if place == "while saving" else None
        process = begin(arguments, folder / "log", syncs, number)
        if syncs is None:
            before = set(folder.glob("checkpoints/*/*/step*"))
            while set(folder.glob("checkpoints/*/*/step*")) == before and os.waitpid(process, os.WNOHANG)[0] == 0:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.03))
            os.kill(process, number)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        ended.append([number.name, place, status])
    status = os.waitstatus_to_exitcode(os.waitpid(begin(arguments, folder / "log", None, signal.SIGTERM), 0)[1])
    print(json.dumps({"ended": ended, "last": status}))


if __name__ == "__main__":
    main()
