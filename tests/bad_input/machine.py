"""Define what the machine can do to a stage: full disk, kill, interruption, a file in the way, a second workflow."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.bad_input import small
from tests.bad_input.case import Case, Place, separately
from tests.bad_input.small import ROOT, Command, Ended

KILLED = 137
STOPPED = 130
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
"""A write beyond this many bytes of a file fails, as on a full disk."""
OLD = b"what was there before"


def over_old(verb: str, file: str, part: str = "code") -> Callable[[Place], Command]:
    """Return a stage's command whose output already exists from an earlier time."""

    def make(place: Place) -> Command:
        command = place.stages(verb, part)
        (place.folder / "out").mkdir()
        (place.folder / "out" / file).write_bytes(OLD)
        return command.changed(output_folder="out")

    return make


def afresh(place: Place) -> Command:
    """Return the command `clean` with a new output folder."""
    return place.stages("clean", "code").changed(output_folder="out")


def limited(size: int) -> Callable[[Place, Command], Ended]:
    """Run the command in a process whose files may not exceed this size."""
    return lambda place, command: separately(place, command, LIMIT.format(size))


def tiny_disk(place: Place, command: Command) -> Ended:
    """Run the command with `out` on a file system of 32 KiB, too small for the pack's blocks."""
    script = textwrap.dedent(f"""
        set -e
        mount -t tmpfs -o size=32k none out
        set +e
        {sys.executable} -m speciate {command.verb} {" ".join(command.arguments)}
        status=$?
        ls -A out >&2
        exit $status
    """)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script],
        cwd=place.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=small.PATIENCE,
        check=False,
    )
    assert "blocks.npy" not in done.stderr.splitlines()[-1], done.stderr
    return small.ended(command, done.returncode, done.stderr)


def long_blocks(place: Place) -> Command:
    """Return the command `pack` for enough text that its blocks take more than 32 KiB."""
    command = place.stages("pack", "prose").changed(output_folder="out")
    (place.folder / "out").mkdir()
    folder = pathlib.Path(command.arguments[command.arguments.index("--encoded-folder") + 1]) / "0-of-1"
    file = place.folder / folder / "train.documents.parquet"
    table = pq.read_table(file).slice(0, 1)
    table = table.set_column(3, table.schema.field("stop"), pa.array([100_000], pa.int64()))
    pq.write_table(table, file)
    np.save(place.folder / folder / "train.tokens.npy", np.zeros(100_000, np.uint16))
    return command


KILL = """
import os, signal, pathlib
from speciate.data import documents
write = documents.DocumentWriter.write
def die(self, document):
    write(self, document)
    if len(self._rows) == 5:
        self.end_row_group()
        {0}
documents.DocumentWriter.write = die
"""


def killed(place: Place, command: Command) -> Ended:
    """Kill the stage after it has written some documents; then run it again, which must succeed."""
    done = separately(place, command, KILL.format("os.kill(os.getpid(), signal.SIGKILL)"))
    assert done.status == -9, done.said
    left = [file.name for file in (place.folder / "out").iterdir()]
    assert left and all(name.startswith(".") for name in left), left
    with small.within(place.folder):
        again = small.call(command)
    assert again.status == 0, again.said
    shutil.rmtree(place.folder / "out")
    return Ended(KILLED, ("",), done.said)


def interrupted(place: Place, command: Command) -> Ended:
    """Press Ctrl-C after the stage has written some documents."""
    # a shell that starts the tests in the background may make them, and all processes that they start, ignore it
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"
    done = separately(place, command, KILL.format("os.kill(os.getpid(), signal.SIGINT)") + heard)
    return Ended(done.status, ("",), done.said)


def in_the_way(place: Place) -> Command:
    """Put a file where the output folder should be."""
    command = place.stages("sign", "code").changed(output_folder="out/0-of-2")
    (place.folder / "out").write_bytes(OLD)
    return command


CASES = [
    Case(
        "Machine",
        "the disk is full: documents, which wait in the folder for temporary files",
        over_old("clean", "documents.parquet"),
        "the disk is full: HERE (File too large)",
        run=limited(100),
    ),
    Case(
        "Machine",
        "the disk is full: signatures",
        over_old("sign", "digests.npy"),
        "the disk is full: out (File too large)",
        run=limited(300),
    ),
    Case(
        "Machine",
        "the disk is full: blocks",
        over_old("pack", "train.blocks.npy", "prose"),
        "the disk is full: out (File too large)",
        run=limited(200),
    ),
    Case(
        "Machine",
        "a small file system is full: blocks",
        long_blocks,
        "the disk is full: out (No space left on device)",
        run=tiny_disk,
    ),
    Case("Machine", "killed while it writes; run again, it succeeds", afresh, "", KILLED, killed),
    Case("Machine", "Ctrl-C while it writes", afresh, "", STOPPED, interrupted),
    Case("Machine", "a file where the output folder should be", in_the_way, "[Errno 20] Not a directory: 'out/0-of-2'"),
]
