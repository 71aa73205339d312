"""Import a stage once, and fork a process for each command that wants it; warm.py has the clients, and says why."""

import contextlib
import ctypes
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass

from speciate import machine
from speciate.warm import FORWARDED, STARTED_BY, NotServed, set_name, user_of

IDLE = 60
"""Seconds after which a server without jobs ends, since it holds some 200 MB."""
PR_SET_PDEATHSIG = 1


@dataclass
class Job:
    """A job that runs."""

    connection: socket.socket
    """To its client."""
    pid: int
    handle: int
    """A file descriptor that is readable when the process has ended."""


class Server:
    """Forks a process for each command of one stage."""

    def __init__(self, stage: str, listener: socket.socket, snakemake: int) -> None:
        self.stage, self.listener, self.snakemake = stage, listener, snakemake
        self.jobs: list[Job] = []
        self.is_open = True
        self.libc = ctypes.CDLL(None)
        # it ends when its Snakemake and its jobs do, who get these signals themselves
        self.before = {number: signal.signal(number, signal.SIG_IGN) for number in FORWARDED}

    def serve(self) -> bool:
        """Serve until it is not needed any more, and return False; return True in the process of each job."""
        while self.is_open or self.jobs:
            readable = self._wait()
            for job in list(self.jobs):
                if job.connection.fileno() in readable:
                    self._signal(job)
                if job.handle in readable:
                    self._finish(job)
            if self.snakemake in readable or not (readable or self.jobs):
                self.is_open = False
                self.listener.close()
            elif self.is_open and self.listener.fileno() in readable and self._accept():
                return True
        return False

    def _wait(self) -> set[int]:
        """Return the file descriptors on which something has happened; none after a time without jobs."""
        waiting = select.poll()
        for number in [self.listener.fileno(), self.snakemake] if self.is_open else []:
            waiting.register(number, select.POLLIN)
        for job in self.jobs:
            waiting.register(job.handle, select.POLLIN)
            if job.connection.fileno() >= 0:
                waiting.register(job.connection, select.POLLIN)
        return {number for number, _ in waiting.poll(None if self.jobs else IDLE * 1000)}

    def _signal(self, job: Job) -> None:
        """Pass on what the job's client has received; without a client, end the job."""
        try:
            message = job.connection.recv(1)
        except OSError:
            message = b""
        if not message:
            job.connection.close()
        os.kill(job.pid, message[0] if message else signal.SIGKILL)

    def _finish(self, job: Job) -> None:
        """Tell the job's client how it ended."""
        _, status = os.waitpid(job.pid, 0)
        with contextlib.suppress(OSError):
            job.connection.send(str(status).encode())
        self.jobs.remove(job)
        job.connection.close()
        os.close(job.handle)

    def _accept(self) -> bool:
        """Start the job of the next client; return True in its process."""
        connection, _ = self.listener.accept()
        connection.settimeout(10)
        descriptors: list[int] = []
        try:
            _, descriptors, _, _ = socket.recv_fds(connection, 16, 4)
            if len(descriptors) < 4 or user_of(connection) != os.getuid():
                raise NotServed("its server has not understood it, or is another user's")
            if count_threads() != 1:
                raise NotServed(f"the imports of {self.stage} have left {count_threads()} threads in its server, not 1")
            return self._fork(connection, descriptors)
        except (OSError, NotServed) as error:
            with contextlib.suppress(OSError):
                connection.send(f"refused {error}".encode())
            connection.close()
        finally:
            for number in descriptors:
                os.close(number)
        return False

    def _fork(self, connection: socket.socket, descriptors: list[int]) -> bool:
        """Fork a job; return True in its process."""
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            try:
                self._become_job(connection, descriptors, server)
            except BaseException as error:  # whatever it is, this process must not serve
                os.write(2, f"speciate {self.stage}: {error!r}\n".encode())
                os._exit(1)
            return True
        try:
            self.jobs.append(Job(connection, pid, os.pidfd_open(pid)))
        except OSError:  # there are too many jobs to watch another
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        with contextlib.suppress(OSError):  # a client that is gone is noticed next
            connection.send(f"job {pid}".encode())
        return False

    def _become_job(self, connection: socket.socket, descriptors: list[int], server: int) -> None:
        """Make this fork what the command would have been."""
        self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != server:
            os._exit(1)
        for each in (connection, self.listener, *(job.connection for job in self.jobs)):
            each.close()
        for number in (self.snakemake, *(job.handle for job in self.jobs)):
            os.close(number)
        for number in range(3):
            os.dup2(descriptors[number], number)
        with open(os.dup(descriptors[3]), "rb") as request:
            request.seek(0)
            sys.argv, sys.orig_argv, environment = marshal.load(request)
        os.environb.clear()
        os.environb.update(environment)
        for number, handler in self.before.items():
            signal.signal(number, handler)
        set_name(f"speciate {self.stage}")


def count_threads() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task"))


def _snakemake() -> int:
    """Return a file descriptor that is readable when this process's Snakemake has ended."""
    _, pid, start = os.environ[STARTED_BY].split()
    handle = os.pidfd_open(int(pid))
    if machine.start_of(int(pid)) != int(start):
        raise NotServed("its Snakemake has ended")
    return handle


def import_stage(stage: str) -> None:
    """Import what a stage needs, so that no thread is left."""
    # Arrow's allocator would start a thread, which no fork has
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    with contextlib.suppress(Exception):  # each job meets and reports the error itself
        importlib.import_module("speciate.graph.recording")
        importlib.import_module(f"speciate.stages.{stage}")
    if count_threads() > 1:
        # OpenBLAS ends its threads at a fork, and starts them again when they are needed
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def main() -> None:
    """Serve the stage that the command line names; in each fork, run it."""
    stage, number = sys.argv[1:]
    server = Server(stage, socket.socket(fileno=int(number)), _snakemake())
    import_stage(stage)
    gc.collect()
    gc.freeze()
    if not server.serve():
        os._exit(0)  # at once, since there is nothing to finish
    importlib.import_module("speciate.cli").main()


if __name__ == "__main__":
    main()
