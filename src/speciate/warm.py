"""Run the jobs of one stage as copies of a process that has imported what the stage needs.

Importing torch and the package takes a second or more, a third of a short job. So where the workflow offers it
(`SPECIATE_WARM_SOCKET`, which workflow/warm.py sets for jobs on its own machine), the first job of a stage starts a
server, which imports the stage and nothing else. Each job of that stage is then a fork of it. `python -m speciate
STAGE` itself is only a client: it hands over its command line, its environment and its standard streams, passes on the
signals that it receives, and ends as the fork ended.

A fork must be what a new process would be. So a server serves only commands that agree with it in everything that a
process inherits or reads while it imports (`served_alike`), and it forks only while it has a single thread: no pool of
OpenMP, OpenBLAS or Arrow is copied half. Where a command cannot be served, it runs in its own process, and says so.

Servers listen at abstract addresses, which leave no file. They end when their Snakemake has ended and their last job
too, or after a minute without one. A job ends with its client. If its server is killed, it is told to end
(SIGTERM), so a training saves.
"""

import array
import contextlib
import hashlib
import marshal
import os
import signal
import socket
import struct
import sys
import time

STAGES = ("train", "evaluate", "evaluate_tasks", "measure", "intervene", "draw")
"""The stages that a study runs often enough."""
ADDRESS = "SPECIATE_WARM_SOCKET"
"""The variable by which the workflow offers servers: a name that no other Snakemake has."""
STARTED_BY = "SPECIATE_STARTED_BY"
"""Variable of every job's processes: which Snakemake has started them, as a digest of its place, its process, and the
start of that (`mark` in workflow/orphans.py)."""
DIFFER = (b"SPECIATE_CONTENT", b"SHLVL", b"_")
"""Variables in which jobs of one server may differ, since nothing that is imported reads them."""
FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
TRIES, PAUSE = 200, 0.02
"""How often, and after how many seconds, a client looks for a server that another one is about to start."""
NAME = "warm"
"""A client's name among processes is this, and the number of the process that does its job."""


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
        if user_of(connection) != os.getuid():
            raise NotServed("another user listens in the place of its server")
        return connection
    raise NotServed("its server does not listen")


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def user_of(connection: socket.socket) -> int:
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
                os.execv(sys.executable, [sys.executable, "-m", "speciate.warm_server", stage, str(listener.fileno())])
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
    set_name(f"{NAME} {pid}")

    def send(number: int) -> None:
        with contextlib.suppress(OSError):  # a server that is gone is noticed below
            connection.send(bytes([number]))

    def pause(number: int) -> None:
        send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        send(signal.SIGCONT)

    for each in FORWARDED:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, lambda number, frame: send(number))
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


def set_name(name: str) -> None:
    """Let this process be shown under a name of at most 15 letters."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(name[:15])
