"""Where a run computes: the CPU, or a GPU that no other run of this node has.

A scheduler that gives a job its GPUs says so by CUDA_VISIBLE_DEVICES (Slurm does); they are then the job's own, and
process k of it takes the k-th. Without one, several jobs of a node choose among all GPUs: each process locks a slot,
one file a GPU in a folder that all of them use (SPECIATE_GPU_LOCKS, or one a user in the folder for temporary files),
until it ends. The kernel frees the lock of a process that is killed.
"""

import contextlib
import fcntl
import os
import pathlib
import tempfile
from collections.abc import Iterator

import torch

from speciate.config.run import TrainingSpec

LOCKS = "SPECIATE_GPU_LOCKS"
GIVEN = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS")
"""Set where somebody has given this job its GPUs already."""


def wanted(settings: TrainingSpec) -> str:
    """cuda or cpu, as the run asks. Raises ValueError where it asks for a GPU and torch sees none."""
    if settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError("training.device: cuda, and torch sees no GPU here; take auto or cpu")
    return "cuda"


@contextlib.contextmanager
def taken(settings: TrainingSpec, local_rank: int = 0) -> Iterator[torch.device]:
    """The device of this process, its own for as long as the block or the process lives.

    Args:
        settings: the run's.
        local_rank: which of the run's processes on this node, from 0.

    Raises:
        ValueError: no GPU is there, or none is left.
    """
    if wanted(settings) == "cpu":
        yield torch.device("cpu")
        return
    count = torch.cuda.device_count()
    with contextlib.ExitStack() as held:
        if any(os.environ.get(variable) for variable in GIVEN):
            index = local_rank
            if index >= count:
                raise ValueError(f"training.processes: process {index} of this node has no GPU; torch sees {count}")
        else:
            index = held.enter_context(slot(count))
        torch.cuda.set_device(index)
        yield torch.device("cuda", index)


def lock_folder() -> pathlib.Path:
    """Where the slots' lock files are."""
    named = os.environ.get(LOCKS)
    return pathlib.Path(named) if named else pathlib.Path(tempfile.gettempdir()) / f"speciate-gpus-{os.getuid()}"


@contextlib.contextmanager
def slot(count: int) -> Iterator[int]:
    """The first of `count` slots that no process holds, from 0; held inside the block.

    Raises:
        ValueError: all of them are held.
    """
    folder = lock_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        # never removed: another process could then lock a new file of the same name
        with (folder / f"gpu{index}.lock").open("w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield index
            return
    raise ValueError(
        f"{folder}: {'the one GPU is' if count == 1 else f'all {count} GPUs are'} taken; "
        f"run as many jobs at a time as there are GPUs (--resources gpu={count})"
    )
