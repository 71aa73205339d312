"""The lock of a run's checkpoint folder: one process at a time trains a run. It changes no byte of the run.

The lock is a file, made exclusively, that its holder touches every HEARTBEAT seconds. It needs no `flock`, which some
file systems lack and others keep to one machine. A holder that is gone from this machine frees it at once (its process
number and start are in the file); one on another machine, which cannot be asked, once the file has not been touched
for LIMIT seconds. A holder that was suspended for longer, and finds that another has taken over, ends without writing.
"""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from speciate.io import TemporaryError
from speciate.machine import HOLDER, process_in_words, read_holder, this_process
from speciate.training.checkpoint.disk import make_folder

LOCK = "training.lock"
HEARTBEAT, LIMIT = 15.0, 120.0
POLL = 0.5
"""Seconds between two looks of a process that waits."""


@dataclass(frozen=True)
class Held:
    """A lock that this process holds."""

    folder: pathlib.Path
    lease: SoftFileLease

    def check(self) -> None:
        """Raise TemporaryError if another process has taken the lock, because this one gave no sign of life."""
        if self.lease.compromise is not None:
            raise TemporaryError(
                f"{self.folder}: another process trains this run now, since this one gave no sign of life for "
                f"{LIMIT:.0f} seconds; it ends here and writes nothing more"
            )


@contextlib.contextmanager
def exclusive(
    folder: pathlib.Path,
    made_by: Mapping[str, str] | None = None,
    *,
    wait: Callable[[str], None] | None = None,
    should_stop: Callable[[], object] = bool,
) -> Iterator[Held]:
    """Lock a run's folder, which is made where it is missing, until the block or the process ends.

    Args:
        folder: the run's folder.
        made_by: the digests of the spec and the code that are to be trained, for others to read.
        wait: is told once, in words, whom this process waits for; None: it does not wait.
        should_stop: ends the waiting.

    Raises:
        ValueError: another process holds the lock, and this one does not wait.
        TemporaryError: this process was asked to stop while it waited.
    """
    lease = SoftFileLease(folder / LOCK, lease_duration=LIMIT, heartbeat_interval=HEARTBEAT, timeout=0)
    told = False
    while True:
        make_folder(folder)
        try:
            lease.acquire()
            break
        except FileNotFoundError:  # a run that has just finished removes the folder
            continue
        except (Timeout, LeaseSettingsMismatch):  # held, the latter with the limit of another version
            pass
        if wait is None:
            raise ValueError(f"{folder}: another process is training this run; wait for it or end it") from None
        if not told:
            wait(process_in_words(read_holder(folder)))
            told = True
        if should_stop():
            raise TemporaryError(f"{folder}: was asked to stop while another process trains this run")
        time.sleep(POLL)
    try:
        (folder / HOLDER).write_text(json.dumps({**own_facts(), **(made_by or {})}) + "\n", encoding="utf-8")
        yield Held(folder, lease)
    finally:
        if lease.compromise is None:
            (folder / HOLDER).unlink(missing_ok=True)
        lease.release()
        with contextlib.suppress(OSError):  # it holds checkpoints, or another process has just locked it
            folder.rmdir()


@contextlib.contextmanager
def follow(folder: pathlib.Path, should_stop: Callable[[], object] = bool) -> Iterator[None]:
    """Wait until the main process of this launch of torchrun holds the lock of a run's folder."""
    while read_holder(folder).get("launch") != launch():
        if should_stop():
            raise TemporaryError(f"{folder}: was asked to stop before the training began")
        time.sleep(POLL)
    yield


def own_facts() -> dict[str, Any]:
    """Return what others may want to know of this process."""
    facts = {**this_process(), "launch": launch()}
    return facts | ({"slurm_job": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {})


def launch() -> str:
    """Return a text that the processes of one launch of torchrun share; empty for a process alone."""
    return " ".join(os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")).strip()
