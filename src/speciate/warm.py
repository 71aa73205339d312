"""Run the jobs of one stage as copies of a process that has imported what the stage needs.

Importing torch and the package takes a second or more, a third of a short job. So where the workflow offers it
(`SPECIATE_WARM_SOCKET`, which workflow/warm.py sets for jobs on its own machine), the first job of a stage starts a
server, which imports the stage and nothing else. Each job of that stage is then a fork of it. `python -m speciate STAGE`
itself is only a client: it hands over its command line, its environment and its standard streams, passes on the signals
that it receives, and ends as the fork ended.

A fork must be what a new process would be. So a server serves only commands that agree with it in everything that a
process inherits or reads while it imports (`served_alike`), and it forks only while it has a single thread: no pool of
OpenMP, OpenBLAS or Arrow is copied half. Where a command cannot be served, it runs in its own process, and says so.

Servers listen at abstract addresses, which leave no file. They end when their Snakemake has ended and their last job
too, or after IDLE seconds without one. A job ends with its client, and is told to end (SIGTERM) if its server is killed.
"""

import array
import contextlib
import ctypes
import gc
import hashlib
import importlib
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass

STAGES = ("train", "evaluate", "measure", "intervene", "draw")
"""The stages that a study runs often enough."""
ADDRESS = "SPECIATE_WARM_SOCKET"
"""The variable by which the workflow offers servers: a name that no other Snakemake has."""
STARTED_BY = "SPECIATE_STARTED_BY"
"""Variable of every job's processes: which Snakemake has started them, as a digest of its place, its process, and the
start of that (`mark` in workflow/orphans.py)."""
DIFFER = (b"SPECIATE_CONTENT", b"SHLVL", b"_")
"""Variables in which jobs of one server may differ, since nothing that is imported reads them."""
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
IDLE = 60
"""Seconds after which a server without jobs ends, since it holds some 200 MB."""
TRIES, PAUSE = 200, 0.02
"""How often, and after how many seconds, a client looks for a server that another one is about to start."""
NAME = "warm"
"""A client's name among processes is this, and the number of the process that does its job."""
PR_SET_PDEATHSIG = 1


class NotServed(Exception):
    """Says why a command runs in its own process."""


def run_warm(words: list[str]) -> None:
    """Let a server run the command `words`, and end as it ends; return where it has to run in this process."""
    if not os.environ.get(ADDRESS) or not words or words[0] not in STAGES or "RANK" in os.environ:
        return
    try:
        connection = _connect(words[0])
        _request(connection)
        pid = _answer(connection)
    except (OSError, NotServed) as error:
        print(f"speciate {words[0]}: runs in a process of its own: {error}", file=sys.stderr, flush=True)
        return
    raise SystemExit(_follow(connection, pid, words[0]))


def served_alike(stage: str) -> bytes:
    """Return all in which the commands of one server agree: what a process inherits, and what imports read."""
    umask = os.umask(0)
    os.umask(umask)
    environment = sorted((name, value) for name, value in os.environb.items() if name not in DIFFER)
    ignored = [int(number) for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    inherited = [umask, os.nice(0), sorted(os.sched_getaffinity(0)), ignored]
    return marshal.dumps([stage, sys.executable, sys.path, os.getcwd(), inherited, environment])


def _connect(stage: str) -> socket.socket:
    """Return a connection to the stage's server, which is started if there is none."""
    name = f"{os.environ[ADDRESS]}-{hashlib.sha256(served_alike(stage)).hexdigest()[:16]}"
    for _ in range(TRIES):
        connection = _new_socket()
        try:
            connection.connect(f"\0{name}")
        except ConnectionRefusedError:
            connection.close()
            if not _start(f"\0{name}", stage):
                time.sleep(PAUSE)
            continue
        if _user(connection) != os.getuid():
            raise NotServed("another user listens in the place of its server")
        return connection
    raise NotServed("its server does not listen")


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _user(connection: socket.socket) -> int:
    """Return the user at the other end."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def _start(address: str, stage: str) -> bool:
    """Start a server, as no child of this process; return False if another command has just done so."""
    with _new_socket() as listener:
        try:
            listener.bind(address)
        except OSError:
            return False
        listener.listen(socket.SOMAXCONN)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return True
        try:
            os.setsid()
            if os.fork() == 0:
                nowhere = os.open(os.devnull, os.O_RDWR)
                for number in range(3):
                    os.dup2(nowhere, number)
                listener.set_inheritable(True)
                os.execv(sys.executable, [sys.executable, "-m", "speciate.warm", stage, str(listener.fileno())])
        finally:
            os._exit(0)


def _request(connection: socket.socket) -> None:
    """Hand over what makes this command differ from the others of its server."""
    content = os.memfd_create("request")
    os.write(content, marshal.dumps([sys.argv, sys.orig_argv, dict(os.environb)]))
    rights = array.array("i", [0, 1, 2, content])
    connection.sendmsg([b"run"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os.close(content)


def _answer(connection: socket.socket) -> int:
    """Return the process that does the job."""
    try:
        kind, _, rest = connection.recv(4096).decode().partition(" ")
    except ConnectionResetError:
        kind, rest = "", ""
    if kind != "job":
        raise NotServed(rest or "its server has not started, or has ended")
    return int(rest)


def _follow(connection: socket.socket, pid: int, stage: str) -> int:
    """Pass signals on until the job ends; return its exit status, or end by the signal by which it ended."""
    _set_name(f"{NAME} {pid}")

    def send(number: int) -> None:
        with contextlib.suppress(OSError):  # a server that is gone is noticed below
            connection.send(bytes([number]))

    def pause(number: int) -> None:
        send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        send(signal.SIGCONT)

    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: send(number))
    signal.signal(signal.SIGTSTP, lambda number, frame: pause(number))
    try:
        message = connection.recv(4096)
    except ConnectionResetError:
        message = b""
    if not message:
        from speciate.cli import FAILED_FOR_NOW, MAY_PASS

        for line in ("error: the process from which its own was forked was killed", MAY_PASS):
            print(f"speciate {stage}: {line}", file=sys.stderr, flush=True)
        return FAILED_FOR_NOW
    status = int(message)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return os.waitstatus_to_exitcode(status)


def _set_name(name: str) -> None:
    """Let this process be shown under a name of at most 15 letters."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(name[:15])


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
            if len(descriptors) < 4 or _user(connection) != os.getuid():
                raise NotServed("it has not said what it wants, or is another user's")
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
            self._become_job(connection, descriptors, server)
            return True
        self.jobs.append(Job(connection, pid, os.pidfd_open(pid)))
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
        _set_name(f"speciate {self.stage}")


def count_threads() -> int:
    """Return the number of threads of this process."""
    return len(os.listdir("/proc/self/task"))


def _snakemake() -> int:
    """Return a file descriptor that is readable when this process's Snakemake has ended."""
    from speciate import machine

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
    if server.serve():
        importlib.import_module("speciate.cli").main()


if __name__ == "__main__":
    main()
