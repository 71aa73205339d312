"""Test that one process at a time trains a run, on file systems without flock, after kills and across machines."""

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from speciate.io import TemporaryError
from speciate.machine import HOLDER, read_holder
from speciate.training.checkpoint import lock
from speciate.training.distributed import gpu_slots

HOLD = """
import pathlib, platform, socket, sys
folder, host = sys.argv[1:]
if host:
    socket.gethostname = platform.node = lambda: host
from speciate.training.checkpoint import lock
lock.LIMIT, lock.HEARTBEAT = 1.0, 0.1
with lock.exclusive(pathlib.Path(folder), {"spec": "s", "code": "c"}):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another(folder: pathlib.Path, host: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run another process, which holds the lock until its input ends."""
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(lock.__file__).parents[3])}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", HOLD, str(folder), host]
    with subprocess.Popen(command, env=environment, **streams) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LIMIT", 1.0)
    monkeypatch.setattr(lock, "HEARTBEAT", 0.1)


def hold(folder: pathlib.Path, **options: Callable[..., object]) -> None:
    with lock.exclusive(folder, **options):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_no_flock_is_needed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, missing)
    with lock.exclusive(tmp_path / "run"), pytest.raises(ValueError, match="another process is training this run"):
        hold(tmp_path / "run")
    monkeypatch.setenv(gpu_slots.FOLDER_VARIABLE, str(tmp_path))
    with gpu_slots.free_gpu(1), pytest.raises(ValueError, match="the only GPU is in use"), gpu_slots.free_gpu(1):
        pass


def test_a_killed_process_frees_the_lock(tmp_path: pathlib.Path) -> None:
    with another(tmp_path) as process:
        with pytest.raises(ValueError, match="another process is training this run"):
            hold(tmp_path)
        process.kill()
        process.wait()
        hold(tmp_path)


def test_a_waiting_process_is_told_for_whom_and_takes_over(tmp_path: pathlib.Path) -> None:
    told: list[str] = []
    with another(tmp_path) as process:

        def tell(words: str) -> None:
            assert process.stdin is not None
            told.append(words)
            facts = read_holder(tmp_path)
            assert (facts["pid"], facts["spec"], facts["code"]) == (process.pid, "s", "c")
            process.stdin.close()

        with lock.exclusive(tmp_path, wait=tell):
            assert process.wait() == 0
            assert read_holder(tmp_path)["pid"] == os.getpid()
    assert len(told) == 1
    assert told[0].startswith(f"process {process.pid} on ")
    assert not tmp_path.exists()


def test_a_process_that_is_asked_to_stop_waits_no_longer(tmp_path: pathlib.Path) -> None:
    with another(tmp_path), pytest.raises(TemporaryError, match="was asked to stop"):
        hold(tmp_path, wait=lambda words: None, should_stop=lambda: True)


def test_one_on_another_machine_holds_the_lock_while_it_gives_a_sign_of_life(tmp_path: pathlib.Path) -> None:
    with another(tmp_path, "elsewhere") as process:
        mark = (tmp_path / lock.LOCK).stat().st_mtime_ns
        while (tmp_path / lock.LOCK).stat().st_mtime_ns == mark:  # it lives
            time.sleep(0.01)
        with pytest.raises(ValueError, match="another process is training this run"):
            hold(tmp_path)
        process.kill()
        process.wait()
        told: list[str] = []
        # nobody here can tell that it is gone but by its silence
        hold(tmp_path, wait=told.append)
        assert told == [f"process {process.pid} on elsewhere, since {told[0].rpartition('since ')[2]}"]


def test_one_whose_lock_was_taken_writes_nothing_more(tmp_path: pathlib.Path) -> None:
    with lock.exclusive(tmp_path) as held:
        held.check()
        (tmp_path / lock.LOCK).unlink()  # another takes over
        with another(tmp_path) as process:
            while held.lease.compromise is None:
                time.sleep(0.01)
            with pytest.raises(TemporaryError, match="another process trains this run now"):
                held.check()
            assert read_holder(tmp_path)["pid"] == process.pid
            os.kill(process.pid, signal.SIGSTOP)
    assert (tmp_path / HOLDER).is_file()  # it is the other's


def test_processes_of_one_launch_wait_for_their_main_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "earlier")
    with lock.exclusive(tmp_path):
        with lock.follow(tmp_path):
            pass
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "later")
        with pytest.raises(TemporaryError, match="was asked to stop"), lock.follow(tmp_path, lambda: True):
            pass


def test_a_job_waits_for_a_gpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu_slots.FOLDER_VARIABLE, str(tmp_path))
    first = gpu_slots.free_gpu(1)
    assert first.__enter__() == 0
    asked: list[None] = []

    def free_at_the_second_look() -> bool:
        asked.append(None)
        if len(asked) == 2:
            first.__exit__(None, None, None)
        return len(asked) > 5

    with gpu_slots.free_gpu(1, free_at_the_second_look) as index:
        assert index == 0
    assert len(asked) == 2
