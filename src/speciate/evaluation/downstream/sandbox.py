"""Run a program that a model wrote, and its tests, where it can do no harm; judge whether the tests passed.

The choice: Linux's namespaces by util-linux's `unshare`, which every distribution installs, around `jail.py`.
bubblewrap and nsjail build the same walls from the same system calls, but somebody must install them, with root's
rights. Packages of PyPI that claim to sandbox Python either need one of the two, or filter Python's source, which hides
nothing from a program that knows Python's objects. Time, memory, files, processes: `jail.py`.

The walls: no network; no file of the machine but /usr, the C library and Python's own, for reading; 16 MiB in an
empty /tmp; no second process; no rights, as `nobody` where root runs us. Where the machine allows no namespaces, no
program runs.
"""

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import dataclass

from speciate.evaluation.downstream import jail

JAIL = pathlib.Path(jail.__file__)
"""Its text runs inside. It is imported so that what it says is part of the code whose change makes scores stale."""
NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL")
PATIENCE = 30
"""Seconds beyond the program's own after which the sandbox itself has failed."""


class SandboxError(ValueError):
    """The sandbox could not be built, or broke: nothing is known of the program."""


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float = 5.0
    """Seconds by the clock."""
    megabytes: int = 512
    """Memory, in MiB."""


@dataclass(frozen=True)
class Verdict:
    """Whether a program has passed its tests."""

    passed: bool
    reason: str
    """Why it has not; empty if it has."""


def run_program(program: str, test: str, entry_point: str, limits: Limits = Limits()) -> Verdict:
    """Run a program, then its tests, in a sandbox.

    Args:
        program: Python source that defines `entry_point`.
        test: Python source that defines `check(candidate)`, which raises where the candidate is wrong.
        entry_point: name of the function that is tested.
        limits: time and memory.

    Raises:
        SandboxError: this machine cannot keep the program from doing harm, so it was not run; or the sandbox broke.
    """
    require_sandbox()
    return _run(program, test, entry_point, limits)


@functools.cache
def require_sandbox() -> None:
    """Check once for each process that the sandbox works here.

    Raises:
        SandboxError: it does not; the message says why.
    """
    if sys.platform != "linux":
        raise SandboxError(f"sandbox: needs Linux's namespaces, and this is {sys.platform}; no program was run")
    if shutil.which("unshare") is None:
        raise SandboxError("sandbox: needs the command unshare (package util-linux); no program was run")
    fine = _run("def one():\n    return 1\n", "def check(candidate):\n    assert candidate() == 1\n", "one", Limits())
    if not fine.passed:
        raise SandboxError(f"sandbox: a program that is right was judged wrong: {fine.reason}; no program was run")


def _run(program: str, test: str, entry_point: str, limits: Limits) -> Verdict:
    if not entry_point.isidentifier():
        raise SandboxError(f"sandbox: entry_point: '{entry_point}' is no name of a function")
    root = os.geteuid() == 0
    request: dict[str, object] = {"program": program, "test": test, "entry_point": entry_point, "root": root}
    request |= {"seconds": limits.seconds, "megabytes": limits.megabytes}
    own = () if root else ("--user", "--map-root-user")
    python = (os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", JAIL.read_text(encoding="utf-8"))
    process = subprocess.Popen(
        [str(shutil.which("unshare")), *own, *NAMESPACES, *python],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},  # no secret of ours goes inside
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(json.dumps(request).encode(), timeout=limits.seconds + PATIENCE)
    except subprocess.TimeoutExpired:
        raise SandboxError(f"sandbox: did not end {PATIENCE} s after the program's time was over") from None
    finally:
        process.kill()  # with it process 1 dies, and with process 1 its whole namespace
        process.wait()
    try:
        verdict = json.loads(output)
        return Verdict(verdict["passed"] is True, str(verdict["reason"]))
    except (ValueError, KeyError, TypeError):
        why = " ".join(errors.decode(errors="replace").split())[-300:] or f"ended with status {process.returncode}"
        raise SandboxError(f"sandbox: this machine does not let us build one, so no program was run: {why}") from None
