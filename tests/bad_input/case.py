"""One case of bad input: how it is made, what is run, and what must be said; and how that is checked."""

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

PLACEHOLDERS = {
    "KEY": "[0-9a-f]{10}",
    "SHA256": "[0-9a-f]{64}",
    "N": r"\d+(?:\.\d+)?",
    "WHY": ".+",
    "HERE": r"/\S+",
    "KINDS": ".+",
}
"""What may differ from one time to the next; WHY is a library's own words, KINDS a list of all there are."""
PIN = {"kind": "package", "name": "tiny", "version": "1.0", "file": "tiny-1.0-py3-none-any.whl", "sha256": "0" * 64}


@dataclass
class Place:
    """The folder of one case, in which it is run."""

    folder: pathlib.Path
    reference: pathlib.Path
    """A folder where all data stages have run; only read."""
    elsewhere: pathlib.Path
    """For what is neither input nor output."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that are set while it runs."""

    def spec(self, **settings: Any) -> str:
        """Writes a stage's spec; gives its path."""
        (self.folder / "spec.json").write_text(json.dumps(settings))
        return "spec.json"

    def clean(
        self, archives: Mapping[str, bytes], source: Mapping[str, Any], filters: Sequence[Any] = (), **settings: Any
    ) -> Command:
        """`clean` of a domain whose sources, all alike, have these archives."""
        given = []
        for name, data in archives.items():
            (self.folder / name).write_bytes(data)
            given += ["--archive", f"{name}={name}"]
        sources = {name: dict(source) for name in archives}
        spec = self.spec(domain="code", sources=sources, filters=list(filters), **settings)
        return Command("clean", ("--spec", spec, *given, "--output-folder", "out"))

    def stages(self, verb: str, part: str = "") -> Command:
        """All stages' files, copied here; the command of `verb` whose arguments hold `part`."""
        shutil.copytree(self.reference, self.folder, dirs_exist_ok=True)
        with small.within(self.folder):
            return next(each for each in small.commands(small.plan()) if each.verb == verb and part in str(each))

    def file(self, pattern: str) -> pathlib.Path:
        """The one file here that matches."""
        (found,) = self.folder.glob(pattern)
        return found

    def study(self, *change: tuple[str, Any], text: str | None = None) -> Command:
        """The study file, some keys (dotted) changed; a value of None takes the key away."""
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
    """What is wrong, and what is said."""

    area: str
    wrong: str
    """One plain line."""
    make: Callable[[Place], Command]
    says: str
    """The message, whole; with the placeholders."""
    status: int = 1
    """0: it is no error; the message is a line among others."""
    run: Callable[[Place, Command], Ended] | None = None
    """How it is run, where not in this process."""
    then: Callable[[Place], None] | None = None
    """What must hold afterwards, where it is no error."""
    alone: bool = True
    """Nothing else writes into the folder meanwhile."""


def pattern(says: str) -> str:
    """A regular expression for exactly a message."""
    names = "|".join(PLACEHOLDERS)
    return re.sub(rf"\b({names})\b", lambda found: PLACEHOLDERS[found[0]], re.escape(says).replace("\\\n", "\n"))


def state(folder: pathlib.Path) -> dict[str, str]:
    """Every file below `folder`, with its digest; Snakemake's own are left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and ".snakemake" not in file.parts)
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def separately(place: Place, command: Command, before: str = "") -> Ended:
    """Runs a verb as a process of its own; `before` is Python that it runs first."""
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
    """A zip of these members."""
    with zipfile.ZipFile(opened := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return opened.getvalue()


def package(reader: Any = "text") -> dict[str, Any]:
    """A source of kind `package`."""
    return {**PIN, "include": ["*.py", "*.jsonl"], "reader": reader}


def cut(file: pathlib.Path, share: float = 0.5) -> None:
    """Cuts a file off."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def save(file: pathlib.Path, array: npt.NDArray[Any]) -> None:
    """Writes another array into a .npy file."""
    np.save(file, array)


def rows(file: pathlib.Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Writes a changed table into a parquet file."""
    pq.write_table(change(pq.read_table(file)), file)
