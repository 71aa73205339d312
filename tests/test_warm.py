"""Test that a fork of a server is what a new process would be: what it is given, and how it ends."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from speciate import machine
from speciate.warm import STAGES

ROOT = pathlib.Path(__file__).parents[1]
STAGE = '''"""Do what a test asks for."""

import argparse
import os
import signal
import sys
import time

IMPORTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--do")


def main(arguments: argparse.Namespace) -> None:
    exec(arguments.do)
'''
WAIT = """
notes = []
def note(number, frame, notes=notes):
    print("received", number, flush=True)
    notes.append(number)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, note)
print(os.getpid(), os.getppid(), flush=True)
while not notes:
    time.sleep(0.01)
time.sleep(0.2)
sys.exit(75)
"""
PATIENCE = 60


def lives(pid: int) -> bool:
    return machine.start_of(pid) is not None


def until(condition: Callable[[], bool]) -> None:
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.02)


class Study:
    """A copy of the package, one stage of which does what its command line says, and a process in Snakemake's place."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.imports("")
        self.snakemake = subprocess.Popen(["sleep", "600"])
        self.address = f"speciate-test-{os.urandom(8).hex()}"
        self.commands: list[subprocess.Popen[str]] = []

    def imports(self, text: str) -> None:
        (self.folder / "speciate/stages/draw.py").write_text(STAGE.replace("IMPORTED", text))

    def start(self, do: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SPECIATE_")},
            "PYTHONPATH": str(self.folder),
            "SPECIATE_STARTED_BY": f"here {self.snakemake.pid} {machine.start_of(self.snakemake.pid)}",
            "SPECIATE_WARM_SOCKET": self.address,
            **variables,
        }
        command = subprocess.Popen(
            [sys.executable, "-m", "speciate", "draw", "--do", do],
            env={name: value for name, value in environment.items() if value},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.commands.append(command)
        return command

    def run(self, do: str, **variables: str) -> tuple[int, str, str]:
        """Return status, output and errors of a command."""
        process = self.start(do, **variables)
        output, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, output, errors

    def server(self, **variables: str) -> int:
        """Return the parent of a job."""
        return int(self.run("print(os.getppid())", **variables)[1])

    def running(self, do: str) -> tuple[subprocess.Popen[str], int, int]:
        """Start a command that prints its process and its parent first; return it, and them."""
        process = self.start(do)
        assert process.stdout is not None
        pid, parent = process.stdout.readline().split()
        return process, int(pid), int(parent)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "src/speciate", folder / "speciate", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def study(tree: pathlib.Path) -> Iterator[Study]:
    made = Study(tree)
    yield made
    for process in (made.snakemake, *made.commands):
        process.kill()
        process.communicate()


SEEN = """
import speciate.warm_server
print(sys.argv, os.getcwd(), sorted(os.environ.items()), oct(os.umask(0)), sys.path, len(os.listdir('/proc/self/task')))
print([str(signal.getsignal(number)) for number in signal.valid_signals() if number not in (9, 19)])
print([os.fstat(number).st_mode for number in (0, 1, 2)], sorted(os.listdir('/proc/self/fd')), sys.flags)
print(sorted(set(sys.modules) - {'runpy', 'pkgutil'}))
print(sys.stdin.read(), file=sys.stderr)
"""


def test_a_job_sees_what_a_process_of_its_own_sees(study: Study) -> None:
    alone = study.run(SEEN, SPECIATE_WARM_SOCKET="", SPECIATE_CONTENT="1")
    assert alone[0] == 0, alone
    for _ in range(2):
        served = study.run(SEEN, SPECIATE_CONTENT="1")
        address = f"('SPECIATE_WARM_SOCKET', '{study.address}'), "
        assert served[1].replace(address, "") == alone[1]


def test_jobs_of_a_stage_are_forks_of_one_server_if_they_agree(study: Study) -> None:
    server = study.server()
    assert server not in (os.getpid(), study.snakemake.pid)
    # what a job reads when it runs may differ, and reaches it
    assert (
        study.run("print(os.getppid(), os.environ['SPECIATE_CONTENT'])", SPECIATE_CONTENT="a b")[1] == f"{server} a b\n"
    )
    assert study.server(SPECIATE_CONTENT="other") == server
    # what imports may read may not
    others = [study.server(OMP_NUM_THREADS="7"), study.server(PYTHONHASHSEED="1"), study.server(ANY="thing")]
    assert len({server, *others}) == 4
    assert study.run("print(os.environ['OMP_NUM_THREADS'])", OMP_NUM_THREADS="7")[1] == "7\n"


@pytest.mark.parametrize("variable", [{"RANK": "0"}, {"SPECIATE_WARM_SOCKET": ""}])
def test_what_torchrun_starts_and_what_a_person_runs_is_not_served(study: Study, variable: dict[str, str]) -> None:
    process = study.start("print(os.getpid(), os.getppid())", **variable)
    assert process.communicate()[0] == f"{process.pid} {os.getpid()}\n"


@pytest.mark.parametrize(
    ("do", "status", "said"),
    [
        ("sys.exit(75)", 75, ""),
        ("raise ValueError('no such arm')", 65, "speciate draw: error: no such arm\n"),
        ("raise MemoryError('no more')", 75, "error: no more\nspeciate draw: this may pass: "),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_a_command_ends_as_its_fork_ends(study: Study, do: str, status: int, said: str) -> None:
    alone, served = study.run(do, SPECIATE_WARM_SOCKET=""), study.run(f"print(os.getppid()); {do}")
    assert alone[0] == served[0] == status
    assert said in alone[2] and said in served[2]
    assert alone[2].splitlines()[-1:] == served[2].splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_signal_reaches_the_job_once(study: Study, number: int, send: Callable[[int, int], None]) -> None:
    process, _, _ = study.running(WAIT)
    send(process.pid, number)
    assert process.communicate(timeout=PATIENCE)[0] == f"received {number}\n"
    assert process.returncode == 75


def test_a_job_stops_and_goes_on_with_its_client(study: Study) -> None:
    process, pid, _ = study.running(WAIT)

    def state(pid: int) -> str:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    process.send_signal(signal.SIGTSTP)
    until(lambda: state(pid) == state(process.pid) == "T")
    process.send_signal(signal.SIGCONT)
    until(lambda: "T" not in (state(pid), state(process.pid)))
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=PATIENCE)[0] == f"received {signal.SIGTERM}\n"


def test_a_job_ends_with_its_client(study: Study) -> None:
    process, pid, server = study.running(WAIT)
    other, *_ = study.running(WAIT)
    process.kill()
    process.communicate()
    until(lambda: not lives(pid))
    assert study.server() == server  # which serves the others
    other.terminate()
    other.communicate()
    assert other.returncode == 75


def test_jobs_are_told_to_end_if_their_server_is_killed(study: Study) -> None:
    process, pid, server = study.running(WAIT)
    os.kill(server, signal.SIGKILL)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75
    assert errors == (
        "speciate draw: error: the process from which its own was forked was killed\n"
        "speciate draw: this may pass: the same command can be tried again\n"
    )
    assert output == f"received {signal.SIGTERM}\n"  # it could save
    until(lambda: not lives(pid))
    assert study.server() != server


def test_a_server_ends_with_its_snakemake_and_its_last_job(study: Study) -> None:
    process, pid, server = study.running(WAIT)
    study.snakemake.kill()
    study.snakemake.wait()
    time.sleep(0.2)
    assert lives(pid) and lives(server) and process.poll() is None
    process.terminate()
    process.communicate()
    assert process.returncode == 75
    until(lambda: not lives(server))
    assert study.address not in pathlib.Path("/proc/net/unix").read_text()


def test_a_server_without_jobs_ends_and_another_takes_its_place(study: Study) -> None:
    file = study.folder / "speciate/warm_server.py"
    text = file.read_text()
    file.write_text(text.replace("IDLE = 60", "IDLE = 0.1"))
    server = study.server()
    until(lambda: not lives(server))
    assert study.server() != server
    file.write_text(text)


@pytest.mark.parametrize(
    ("imported", "variables", "why"),
    [
        ("import threading; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()", {}, "2 threads in"),
        ("if sys.argv[0].endswith('warm_server.py'): os._exit(3)", {}, "its server has not started"),
        ("", {"SPECIATE_STARTED_BY": "here 1 1"}, "its server has not started"),
        ("", {"SPECIATE_WARM_SOCKET": "x" * 200}, "AF_UNIX path too long"),
    ],
)
def test_a_command_that_cannot_be_served_runs_in_its_own_process_and_says_so(
    study: Study, imported: str, variables: dict[str, str], why: str
) -> None:
    study.imports(imported)
    process = study.start("print(os.getpid()); sys.exit(9)", **variables)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (9, f"{process.pid}\n")
    assert re.fullmatch(rf"speciate draw: runs in a process of its own: .*{why}.*\n", errors)


def test_an_import_that_fails_is_the_jobs_own_error(study: Study) -> None:
    study.imports("import nothing_of_this_name")
    status, _, errors = study.run("pass")
    assert status == 1
    assert errors.endswith("ModuleNotFoundError: No module named 'nothing_of_this_name'\n")
    assert "process of its own" not in errors


IMPORT = """
import sys, torch
from speciate import warm_server
asked = []
for name in ("_lazy_init", "is_available", "device_count"):
    setattr(torch.cuda, name, lambda *given: asked.append(given))
warm_server.import_stage(sys.argv[1])
print(f"speciate.stages.{sys.argv[1]}" in sys.modules, warm_server.count_threads(), asked)
"""


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_imports_leaves_no_thread_and_no_gpu_that_a_fork_could_not_use(stage: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, "-c", IMPORT, stage]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True 1 []\n"
