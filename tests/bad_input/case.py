"""Define one case of bad input: how to make it, what to run, what message to expect; and check it."""

import hashlib
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tests.bad_input import small
from tests.bad_input.small import ROOT, Command, Ended

from speciate.cli import FAILED

PLACEHOLDERS = {
    "KEY": "[0-9a-f]{10}",
    "SHA256": "[0-9a-f]{64}",
    "N": r"\d+(?:\.\d+)?",
    "WHY": ".+",
    "HERE": r"/\S+",
    "KINDS": ".+",
}
"""Placeholders for what differs from one time to the next; WHY is a library's own words, KINDS a list of all kinds."""
PIN = {"kind": "package", "name": "tiny", "version": "1.0", "file": "tiny-1.0-py3-none-any.whl", "sha256": "0" * 64}


@dataclass
class Place:
    """Hold the folder of one case, in which it is run."""

    folder: pathlib.Path
    reference: pathlib.Path
    """A folder in which all data stages have run; it is only read."""
    elsewhere: pathlib.Path
    """A folder for what is neither input nor output."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables that are set while the case runs."""

    def spec(self, **settings: Any) -> str:
        """Write a stage's spec; return its path."""
        (self.folder / "spec.json").write_text(json.dumps(settings))
        return "spec.json"

    def clean(
        self, archives: Mapping[str, bytes], source: Mapping[str, Any], filters: Sequence[Any] = (), **settings: Any
    ) -> Command:
        """Return the command `clean` for a domain whose sources, all alike, have these archives."""
        given = []
        for name, data in archives.items():
            (self.folder / name).write_bytes(data)
            given += ["--archive", f"{name}={name}"]
        sources = {name: dict(source) for name in archives}
        spec = self.spec(domain="code", sources=sources, filters=list(filters), **settings)
        return Command("clean", ("--spec", spec, *given, "--output-folder", "out"))

    def stages(self, verb: str, part: str = "") -> Command:
        """Copy the files of all stages here; return the command of `verb` whose arguments contain `part`."""
        shutil.copytree(self.reference, self.folder, dirs_exist_ok=True)
        with small.within(self.folder):
            return next(each for each in small.commands(small.plan()) if each.verb == verb and part in str(each))

    def file(self, pattern: str) -> pathlib.Path:
        """Return the one file here that matches."""
        (found,) = self.folder.glob(pattern)
        return found

    def study(self, *change: tuple[str, Any], text: str | None = None) -> Command:
        """Write the study file with some keys (dotted) changed; a value of None removes the key."""
        settings = small.settings()
        for path, value in change:
            *above, last = path.split(".")
            at = settings
            for key in above:
                at = at[key]
            at[last] = value
        small.corpus(self.folder)
        (self.folder / "study.yaml").write_text(json.dumps(settings) if text is None else text)  # JSON is YAML
        return Command("study", ("study.yaml",))


@dataclass(frozen=True)
class Case:
    """Describe what is wrong and which message must follow."""

    area: str
    wrong: str
    """What is wrong, in one plain line."""
    make: Callable[[Place], Command]
    says: str
    """The whole message, with the placeholders."""
    status: int = FAILED
    """The exit status; 0 means that it is no error, and the message is one line among others."""
    run: Callable[[Place, Command], Ended] | None = None
    """How the case is run, if not in this process."""
    then: Callable[[Place], None] | None = None
    """What must hold afterwards, if it is no error."""
    alone: bool = True
    """Whether nothing else writes into the folder meanwhile."""


def pattern(says: str) -> str:
    """Return a regular expression that matches exactly this message."""
    names = "|".join(PLACEHOLDERS)
    return re.sub(rf"\b({names})\b", lambda found: PLACEHOLDERS[found[0]], re.escape(says).replace("\\\n", "\n"))


def state(folder: pathlib.Path) -> dict[str, str]:
    """Return every file below `folder` with its digest, except Snakemake's own files."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and ".snakemake" not in file.parts)
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def separately(place: Place, command: Command, before: str = "") -> Ended:
    """Run a stage as a separate process; `before` is Python code that it runs first."""
    lines = f"import sys\n{before}\nfrom speciate import cli\ncli.main({[command.verb, *command.arguments]!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=place.folder,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        | place.environment,
        capture_output=True,
        text=True,
        timeout=small.PATIENCE,
        check=False,
    )
    return small.ended(command, done.returncode, done.stderr)


def wheel(members: Mapping[str, str | bytes]) -> bytes:
    """Make a zip of these members."""
    with zipfile.ZipFile(opened := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return opened.getvalue()


def package(reader: Any = "text") -> dict[str, Any]:
    """Return a source of kind `package`."""
    return {**PIN, "include": ["*.py", "*.jsonl"], "reader": reader}


def cut(file: pathlib.Path, share: float = 0.5) -> None:
    """Truncate a file."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def save(file: pathlib.Path, array: npt.NDArray[Any]) -> None:
    """Write another array into a .npy file."""
    np.save(file, array)


def rows(file: pathlib.Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a changed table into a parquet file."""
    pq.write_table(change(pq.read_table(file)), file)
