"""The lock of a run's checkpoint folder: one process at a time trains a run. It changes no byte of the run."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from speciate.training.checkpoint.disk import make_folder


@contextlib.contextmanager
def exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Lock a run's folder, which is made where it is missing, until the block or the process ends.

    Raises:
        ValueError: another process holds the lock.
    """
    while True:
        make_folder(folder)
        with (folder / "lock").open("w", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{folder}: another process is training this run; wait for it or end it") from None
            # a run that has just finished removes the folder: the locked file must still be the one under this name
            if (folder / "lock").exists() and os.fstat(lock.fileno()).st_ino == (folder / "lock").stat().st_ino:
                yield
                return
