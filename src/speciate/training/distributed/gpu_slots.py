"""One GPU for each process, where several jobs of a node choose among all of its GPUs. It changes no byte of a run.

Each process locks a slot until it ends: one file for each GPU, in a folder that all jobs share (SPECIATE_GPU_LOCKS, or
one for each user in the folder for temporary files). The kernel frees the lock of a process that is killed.
"""

import contextlib
import fcntl
import os
import pathlib
import tempfile
from collections.abc import Iterator

FOLDER_VARIABLE = "SPECIATE_GPU_LOCKS"


def lock_folder() -> pathlib.Path:
    """Return the folder of the slots' lock files."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return pathlib.Path(folder) if folder else pathlib.Path(tempfile.gettempdir()) / f"speciate-gpus-{os.getuid()}"


@contextlib.contextmanager
def free_gpu(count: int) -> Iterator[int]:
    """Hold the first of `count` GPUs, numbered from 0, that no other process holds, until the block ends.

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
        f"{folder}: {'the only GPU is' if count == 1 else f'all {count} GPUs are'} in use; "
        f"run at most as many jobs at a time as there are GPUs (--resources gpu={count})"
    )
