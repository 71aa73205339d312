"""One GPU for each process, where several jobs of a node choose among all of its GPUs. It changes no byte of a run.

Each process locks a slot until it ends: one file for each GPU, in a folder that all jobs share (SPECIATE_GPU_LOCKS, or
one for each user in the folder for temporary files). The lock is that of a run (checkpoint/lock.py): it needs no
`flock`, and a process that is killed frees it.
"""

import contextlib
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from speciate.cli import log
from speciate.io import TemporaryError
from speciate.training.checkpoint.lock import HEARTBEAT, LIMIT, POLL

FOLDER_VARIABLE = "SPECIATE_GPU_LOCKS"


def lock_folder() -> pathlib.Path:
    """Return the folder of the slots' lock files."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return pathlib.Path(folder) if folder else pathlib.Path(tempfile.gettempdir()) / f"speciate-gpus-{os.getuid()}"


@contextlib.contextmanager
def free_gpu(count: int, wait: Callable[[], object] | None = None) -> Iterator[int]:
    """Hold the first of `count` GPUs, numbered from 0, that no other process holds, until the block ends.

    Args:
        count: the number of GPUs.
        wait: where all are held, wait for one until this is true; None: do not wait.

    Raises:
        ValueError: all of them are held.
        TemporaryError: `wait` became true before one was free.
    """
    folder = lock_folder()
    folder.mkdir(parents=True, exist_ok=True)
    slots = [
        SoftFileLease(folder / f"slot{index}.lock", lease_duration=LIMIT, heartbeat_interval=HEARTBEAT, timeout=0)
        for index in range(count)
    ]
    told = False
    while True:
        for index, slot in enumerate(slots):
            try:
                slot.acquire()
            except (Timeout, LeaseSettingsMismatch):
                continue
            try:
                yield index
            finally:
                slot.release()
            return
        held = f"{'the only GPU is' if count == 1 else f'all {count} GPUs are'} in use"
        if wait is None:
            raise ValueError(
                f"{folder}: {held}; run at most as many jobs at a time as there are GPUs (--resources gpu={count})"
            )
        if not told:
            log(f"{folder}: {held}; waits for one")
            told = True
        if wait():
            raise TemporaryError(f"{folder}: was asked to stop before a GPU was free")
        time.sleep(POLL)
