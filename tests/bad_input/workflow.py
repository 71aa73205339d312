"""Define cases in Snakemake: a wrong study file before any job, and a second workflow in the same folder."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import yaml
from tests.bad_input import small
from tests.bad_input.case import Case, Place
from tests.bad_input.small import ROOT, Command, Ended

# copy the profile too: it makes half-made files again, so the files that another workflow is writing are not an error
# before Snakemake looks at the lock
COPIED = ("Snakefile", "workflow", "profiles", "src", "containers", "config.yaml", "studies")
SNAKEMAKE = str(ROOT / ".envs/host/bin/snakemake")
GIVEN = ("--configfile", "study.yaml", "--cores", "1")


def workspace(place: Place) -> None:
    """Make a copy of what the workflow needs."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place.folder / name)
    (place.folder / ".envs").symlink_to(ROOT / ".envs")


def in_workspace(*change: tuple[str, object]) -> Callable[[Place], Command]:
    """Put a study into a copy of the repository."""

    def make(place: Place) -> Command:
        place.study(*change)
        workspace(place)
        return Command("data", (*GIVEN, "data"))

    return make


def with_image(content: bytes | None) -> Callable[[Place], Command]:
    """Put a file of this content under the pinned image's name, beside an Apptainer that only tells its version."""

    def make(place: Place) -> Command:
        place.study()
        workspace(place)
        (place.folder / ".envs").unlink()
        images = place.folder / ".envs" / "images"
        images.mkdir(parents=True)
        (place.folder / ".envs" / "host").symlink_to(ROOT / ".envs" / "host")
        pinned = yaml.safe_load((ROOT / "containers" / "images.lock.yaml").read_text())["study"]
        if content is not None:
            (place.folder / pinned["file"]).write_bytes(content)
        apptainer = place.folder / "bin" / "apptainer"
        apptainer.parent.mkdir()
        apptainer.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
        apptainer.chmod(0o755)
        place.environment["PATH"] = f"{apptainer.parent}:{os.environ['PATH']}"
        return Command("data", (*GIVEN, "--workflow-profile", "profiles/container", "--", "data"))

    return make


def start(place: Place, *arguments: str) -> subprocess.Popen[str]:
    """Start Snakemake as a user starts it."""
    keep = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.Popen(
        [SNAKEMAKE, *arguments],
        cwd=place.folder,
        env={**keep, "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(place.elsewhere)} | place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def told(said: str) -> tuple[str, ...]:
    """Return the lines of Snakemake's own error, without its mark and its file."""
    lines = [line for line in said.splitlines() if line.strip()]
    first = next(index for index, line in enumerate(lines) if line.startswith(("WorkflowError", "Error: Directory")))
    return tuple(line.strip() for line in lines[first:] if not line.strip().startswith(("WorkflowError", "File ")))


def refused(place: Place, command: Command) -> Ended:
    """Run the workflow until it is refused."""
    with start(place, *command.arguments) as process:
        said, _ = process.communicate(timeout=small.PATIENCE)
    return Ended(process.returncode, told(said), said)


def beside_another(place: Place, command: Command) -> Ended:
    """Run the workflow while another one works in the same folder."""
    with start(place, *command.arguments) as first:
        try:
            locks = place.folder / ".snakemake" / "locks"
            patience = time.monotonic() + small.PATIENCE
            while not (locks.is_dir() and any(locks.iterdir())):
                assert first.poll() is None and time.monotonic() < patience, "it never took the lock"
                time.sleep(0.05)
            return refused(place, command)
        finally:
            os.killpg(first.pid, signal.SIGKILL)


SNAKEMAKE_FAILED = 1
"""The status of Snakemake itself, which has no other."""
CASES = [
    Case(
        "Workflow",
        "a wrong study file",
        in_workspace(("blok_length", 64)),
        "HERE/study.yaml: blok_length: unknown key",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Workflow",
        "the profile `container` and no image",
        with_image(None),
        "HERE: no such image; `make image` makes or fetches it",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Workflow",
        "another image under the pinned name",
        with_image(b"another image"),
        "HERE: has sha256 SHA256, but containers/images.lock.yaml pins SHA256; no job was run. Remove the file, and "
        "`make image` makes or fetches the pinned one",
        status=SNAKEMAKE_FAILED,
        run=refused,
        alone=False,
    ),
    Case(
        "Workflow",
        "two workflows in one folder: the second",
        in_workspace(),
        "Error: Directory cannot be locked. Please make sure that no other Snakemake process is trying to create "
        "the same files in the following directory:\nHERE\nIf you are sure that no other instances of snakemake are "
        "running on this directory, the remaining lock was likely caused by a kill signal or a power loss. It can "
        "be removed with the --unlock argument.",
        status=SNAKEMAKE_FAILED,
        run=beside_another,
        alone=False,
    ),
]
