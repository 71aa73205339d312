"""Test that programs which mean harm do none, and pass nothing; each hostile sample really runs."""

import contextlib
import json
import os
import pathlib
import socket
import threading
import time

import pytest

from speciate.evaluation.downstream import sandbox
from speciate.evaluation.downstream.sandbox import Limits, SandboxError, Verdict, run_program

TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 9\n"
RIGHT = "def square(x):\n    return x * x\n"


def judged(program: str, seconds: float = 30.0) -> Verdict:
    return run_program(program, TEST, "square", Limits(seconds, 256))


try:
    sandbox.require_sandbox()
    REFUSED = ""
except SandboxError as error:
    REFUSED = str(error)
pytestmark = pytest.mark.skipif(bool(REFUSED), reason=REFUSED)


def test_a_right_program_passes_and_a_wrong_one_does_not() -> None:
    assert judged(RIGHT) == Verdict(True, "")
    assert judged("def square(x):\n    return 2 * x\n") == Verdict(False, "AssertionError:")
    assert judged("def square(x)\n").reason.startswith("SyntaxError")
    assert judged("def cube(x):\n    return x\n").reason.startswith("NameError")


ENDS_EARLY = {
    "_exit while it is defined": "import os\nos._exit(0)",
    "_exit in the first test": "import os\ndef square(x):\n    os._exit(0)",
    "exit": "def square(x):\n    raise SystemExit(0)",
    "at exit": f"{RIGHT}import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "kills itself": "import os, signal\ndef square(x):\n    os.kill(os.getpid(), signal.SIGKILL)",
    "writes the words of our reports": "import os\nfor fd in range(3, 32):\n    try: os.write(fd, b'passed\\n')\n"
    "    except OSError: pass\nos._exit(0)",
    "another check": "def square(x):\n    return 0\ndef check(candidate):\n    pass",
    "another assertion": "import builtins\nclass Quiet(BaseException): pass\nbuiltins.AssertionError = Quiet\n"
    "import sys, os\nsys.exit = os.abort = os._exit = exit = lambda *_: None\ndef square(x):\n    return 0",
    "another exec": "import builtins\nbuiltins.exec = builtins.compile = lambda *_: None\ndef square(x):\n    return 0",
    "a tracer that leaves the test": "import sys\ndef tracer(frame, *_):\n    if frame.f_code.co_name == 'check':\n"
    "        raise SystemExit(0)\n    return tracer\nsys.settrace(tracer)\ndef square(x):\n    return 0",
}


@pytest.mark.parametrize("how", ENDS_EARLY)
def test_what_ends_before_its_tests_has_not_passed(how: str) -> None:
    verdict = judged(ENDS_EARLY[how])
    assert not verdict.passed and verdict.reason


BREEDS = {
    "forks": "import os\ndef square(x):\n    while True:\n        os.fork()",
    "forks and hides it": "import os\ndef square(x):\n    while True:\n        try: os.fork()\n"
    "        except OSError: pass",
    "threads": "import threading, time\ndef square(x):\n    while True:\n"
    "        threading.Thread(target=time.sleep, args=(9,)).start()",
    "commands": "import subprocess\ndef square(x):\n    return subprocess.run(['true']).returncode or 4",
    "loops": "def square(x):\n    while True: pass",
    "sleeps": "import time\ndef square(x):\n    time.sleep(100)",
    "ignores signals": "import signal\nfor number in range(1, 32):\n    try: signal.signal(number, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\ndef square(x):\n    while True: pass",
}


@pytest.mark.parametrize("how", BREEDS)
def test_processes_and_time_are_limited(how: str) -> None:
    endless = how in {"loops", "sleeps", "ignores signals", "forks and hides it"}
    started = time.monotonic()
    verdict = judged(BREEDS[how], seconds=1.0 if endless else 30.0)
    assert not verdict.passed and time.monotonic() - started < 25
    assert ("had not ended" if endless else "Error") in verdict.reason, verdict


GREEDY = {
    "memory": ("hog = []\ndef square(x):\n    while True: hog.append(bytearray(1 << 20))", "MemoryError"),
    "a file": (
        "def square(x):\n    with open('/tmp/big', 'wb') as file:\n        while True: file.write(bytes(1 << 20))",
        "OSError: [Errno 27]",
    ),
    "many files": (
        "def square(x):\n    for i in range(100):\n        open(f'/tmp/{i}', 'wb').write(bytes(1 << 20))",
        "OSError: [Errno 28]",
    ),
    "open files": ("import os\ndef square(x):\n    while True: os.pipe()", "OSError: [Errno 24]"),
    "prints": ("def square(x):\n    while True: print('x' * (1 << 20))", "had not ended"),
    "a long message": ("def square(x):\n    raise ValueError('x' * (1 << 26))", "ValueError: xxx"),
    "shared memory": (
        "import ctypes\ndef square(x):\n    kept = ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600)\n"
        "    raise ValueError(f'shmget {kept}')",
        "ValueError: shmget -1",
    ),
}


@pytest.mark.parametrize("how", GREEDY)
def test_memory_files_and_output_are_limited(how: str) -> None:
    program, reason = GREEDY[how]
    verdict = judged(program, seconds=1.0 if how == "prints" else 20.0)
    assert not verdict.passed and verdict.reason.startswith(reason) and len(verdict.reason) < 400


def told(expression: str, before: str = "") -> str:
    """Return what an expression is inside, as the sandbox reports it."""
    verdict = judged(f"{before}\ndef square(x):\n    raise ValueError({expression})")
    return verdict.reason.removeprefix("ValueError: ")


def test_no_file_of_the_machine_is_seen_or_changed(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("word")
    for file in (secret, pathlib.Path(__file__), pathlib.Path("/etc/passwd"), pathlib.Path.home() / ".bashrc"):
        assert judged(f"open({str(file)!r}).read()\n{RIGHT}").reason.startswith("FileNotFoundError")
        assert judged(f"import os\nos.remove({str(file)!r})\n{RIGHT}").reason.startswith(
            ("FileNotFound", "OSError: [Errno 30]")
        )
    assert secret.read_text() == "word"
    for folder in (tmp_path, pathlib.Path(__file__).parent, pathlib.Path.home(), pathlib.Path("/var/tmp")):
        assert not judged(f"open({str(folder / 'planted')!r}, 'w').write('x')\n{RIGHT}").passed
        assert not (folder / "planted").exists()
    for library in (os.__file__, "/usr/bin/env", "/planted", "/usr/planted", "/dev/planted"):
        assert not judged(f"open({library!r}, 'a').write('x')\n{RIGHT}").passed
    assert judged(f"open('/tmp/own', 'w').write('x')\nassert open('/tmp/own').read() == 'x'\n{RIGHT}").passed
    assert not pathlib.Path("/tmp/own").exists()  # its /tmp was not ours
    assert told("__import__('os').listdir('/tmp')") == "[]"  # and nothing of one program is left for the next
    assert told("__import__('os').path.exists('/proc')") == "False"
    library = pathlib.Path(json.__file__).parent
    assert judged(f"import shutil\nshutil.rmtree({str(library)!r}, ignore_errors=True)\n{RIGHT}").passed
    assert (library / "__init__.py").exists()


def test_no_secret_of_the_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "a-secret-word")
    seen = told("str(dict(__import__('os').environ)) + str(__import__('sys').argv)")
    assert "a-secret-word" not in seen and "TOKEN" not in seen
    assert set(eval(seen.partition("}")[0] + "}")) <= {"LC_CTYPE"}


def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, met = server.getsockname()[1], []
        server.settimeout(1)

        def accept() -> None:
            with contextlib.suppress(TimeoutError):
                met.append(server.accept())

        listener = threading.Thread(target=accept)
        listener.start()
        reached = told(f"__import__('socket').create_connection(('127.0.0.1', {port}), 1)")
        assert "unreachable" in reached
        listener.join()
    assert met == []


def test_no_rights_are_left_and_none_can_be_won() -> None:
    clib = "import ctypes, os\nC = ctypes.CDLL(None, use_errno=True)"
    assert told("C.unshare(0x10000000), ctypes.get_errno()", clib) == "(-1, 1)"  # a user namespace
    assert told("C.mount(b'none', b'/tmp', b'tmpfs', 0, None), ctypes.get_errno()", clib) == "(-1, 1)"
    assert told("C.umount2(b'/', 2), ctypes.get_errno()", clib) == "(-1, 1)"
    assert told("C.ptrace(16, 1, 0, 0), ctypes.get_errno()", clib) == "(-1, 1)"  # attach to process 1
    assert judged(f"import os\nos.chroot('/tmp')\n{RIGHT}").reason.startswith("PermissionError")
    assert judged(f"import os\nos.setuid(1)\n{RIGHT}").reason.startswith("PermissionError")


def test_the_parent_and_all_others_survive() -> None:
    bystander = os.getpid()
    kills = f"import os, signal\nfor pid in (os.getppid(), {bystander}, -1):\n    try: os.kill(pid, signal.SIGKILL)\n"
    kills += f"    except OSError: pass\n{RIGHT}"
    assert judged(kills).passed  # it could harm nobody, and its function is right
    assert os.getpid() == bystander


def test_nothing_outlives_its_program() -> None:
    def ours() -> set[str]:
        found = set()
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (
                    b"__program__" in (folder / "cmdline").read_bytes()
                    and str(os.getpid()) in (folder / "stat").read_text().rpartition(")")[2].split()[1:2]
                ):
                    found.add(folder.name)
            except OSError:
                pass
        return found

    judged(BREEDS["loops"], seconds=0.5)
    assert ours() == set()


def test_a_sandbox_that_cannot_be_built_runs_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, ran = tmp_path / "unshare", tmp_path / "ran"
    fake.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.require_sandbox.cache_clear()
    try:
        with pytest.raises(SandboxError, match=r"^sandbox: this machine does not let us .* Operation not permitted$"):
            run_program(f"open({str(ran)!r}, 'w')\n{RIGHT}", TEST, "square")
        fake.unlink()
        with pytest.raises(SandboxError, match="needs the command unshare"):
            run_program(RIGHT, TEST, "square")
        fake.write_text("#!/bin/sh\nprintf '{\"passed\": 1}'\n")  # no verdict of ours: neither a pass nor a failure
        fake.chmod(0o755)
        with pytest.raises(SandboxError):
            run_program(RIGHT, TEST, "square")
    finally:
        sandbox.require_sandbox.cache_clear()
    assert not ran.exists()
