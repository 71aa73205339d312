"""Read the records of what made each result: `made_by.json` beside the files of a stage.

A stage writes its record when it has written its files (speciate.graph.recording): the digests of its spec, its code
and its environment, of what it read, and of each file that it wrote. At each start the workflow compares the records
with what would be made now. So a result carries its own provenance: it needs neither Snakemake's records nor dates.

A folder of a data stage or of a run holds one record file, with an entry for each stage that wrote into the folder. The
stages of a whole study share folders and run side by side, so each has a file of its own in `results/<study>/made_by/`.
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from speciate.graph.provenance import short_digest

FILE, FOLDER = "made_by.json", "made_by"
ONE_FOLDER_EACH = ("data", "runs", "measures", "interventions")
"""Folders of results, directly or of one study, in which no two jobs of a stage share a folder."""
OF_THE_MACHINE = ("run.json", "timing.json")
"""Files that differ from one machine to the next though nothing that a later stage measures does."""


@dataclass(frozen=True)
class Record:
    """What made the files of one job."""

    spec: str
    """Digest of the spec, or of all of them."""
    code: str
    """Digest of the modules that the job imports; "" if they were edited while it ran."""
    outputs: Mapping[str, tuple[int, str]]
    """File, relative to the record's home -> its bytes and its sha256."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Key of an earlier job's record -> digest of its outputs, when this job began to read."""
    environment: str = ""
    """Digest of the locks by which the job's packages were installed; "" where nothing says it."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Option of the command line that is no path -> its value, where it is not the default."""
    content: str = ""
    """Digest of the user's own files that the job reads, as the workflow found them."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """Processor, instruction set and threads; and the image and the cluster's job, if any."""

    @functools.cached_property
    def made(self) -> str:
        """A digest of what the job wrote, without what only tells where and how fast."""
        outputs = sorted((name, written) for name, written in self.outputs.items() if name not in OF_THE_MACHINE)
        return short_digest(*(f"{name} {size} {sha256}" for name, (size, sha256) in outputs))


@dataclass(frozen=True)
class Entry:
    """Where the record of a job is: a file, and the entry in it."""

    file: pathlib.Path
    stage: str

    @functools.cached_property
    def home(self) -> pathlib.Path:
        """The folder to which the names of outputs are relative."""
        return self.file.parent.parent if self.file.parent.name == FOLDER else self.file.parent

    def key(self, results: pathlib.Path) -> str:
        """Return a name of the record that stays when the folder of results is moved."""
        return f"{self.file.relative_to(results).as_posix()}:{self.stage}"


def results_of(path: pathlib.Path) -> pathlib.Path | None:
    """Return the folder of results in which a file is, as the workflow makes it; None for a file elsewhere."""
    return next((top for top in path.parents if (top / "specs").is_dir() and (top / "source").is_dir()), None)


def entry_of(stage: str, outputs: Iterable[pathlib.Path | str], results: pathlib.Path) -> Entry:
    """Return where the record of the job of `stage` is that writes `outputs`."""
    files = list(map(str, outputs))
    first = pathlib.Path(min(files, key=lambda file: file.count("/")))  # a run's tokenizer is in a folder below
    study, *below = first.parent.relative_to(results).parts or ("",)  # no study, for what joins all of them
    if study == "data" or (below[:1] and below[0] in ONE_FOLDER_EACH):
        return Entry(first.parent / FILE, stage)
    stems = {pathlib.Path(file).stem for file in files}
    if below[:1] == ["tasks"]:  # the tasks of a run share its folder, and their jobs run side by side
        return Entry(first.parent / FOLDER / f"{first.stem}.json", stage)
    # one job for each figure, with one stem; one job for all tables, with many
    name = f"{stage}.{stems.pop()}" if len(stems) == 1 else stage
    return Entry(results / study / FOLDER / f"{name}.json", stage)


def read_records(file: pathlib.Path) -> dict[str, Record]:
    """Return the records in a file by their entries; none where there is no such file, or a damaged one."""
    try:
        content = json.loads(file.read_bytes())
        return {
            stage: Record(**{**facts, "outputs": {name: (size, sha256) for name, (size, sha256) in outputs.items()}})
            for stage, facts in content.items()
            for outputs in [facts["outputs"]]
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def as_json(records: Mapping[str, Record]) -> str:
    """Return the text of a file of records."""
    return json.dumps({stage: asdict(record) for stage, record in records.items()}, indent=1) + "\n"


class Records:
    """The records under a folder of results; each file is read once."""

    def __init__(self, results: pathlib.Path) -> None:
        self.results = results
        self._read: dict[pathlib.Path, dict[str, Record]] = {}
        self._homes: dict[pathlib.Path, list[pathlib.Path]] = {}

    def records_in(self, file: pathlib.Path) -> dict[str, Record]:
        """Return the records in a file by their entries."""
        if file not in self._read:
            self._read[file] = read_records(file)
        return self._read[file]

    def forget(self, entry: Entry) -> None:
        """Read a record anew the next time: a job has written it."""
        self._read.pop(entry.file, None)

    def get(self, entry: Entry) -> Record | None:
        """Return a record; None if there is none."""
        return self.records_in(entry.file).get(entry.stage)

    def of_input(self, path: pathlib.Path) -> list[tuple[Entry, Record]]:
        """Return the records of the jobs that made a file, or the files of a folder, its shards or its runs."""
        is_folder = path.is_dir()
        folder = path if is_folder else path.parent
        # a stage's own folder, the run's folder around the tokenizer, and the folders that a study's stages share
        files = [folder / FILE, folder.parent / FILE, *self._shared(folder), *self._shared(folder.parent)]
        found = [(entry, record) for entry, record in self._all(files) if _wrote(entry, record, path)]
        if not found and is_folder:
            # shards, or the runs of a study: <ablation>/seed<k>, each with a file or with one for each task
            below = (f"*/{FILE}", f"*/*/{FILE}", f"*/*/{FOLDER}/*.json")
            found = list(self._all(sorted(file for pattern in below for file in path.glob(pattern))))
        return found

    def _shared(self, home: pathlib.Path) -> list[pathlib.Path]:
        """Return the records' files of the stages that share the folders of a study."""
        if home not in self._homes:
            self._homes[home] = sorted((home / FOLDER).glob("*.json"))
        return self._homes[home]

    def _all(self, files: Iterable[pathlib.Path]) -> Iterator[tuple[Entry, Record]]:
        for file in files:
            for stage, record in self.records_in(file).items():
                yield Entry(file, stage), record


def _wrote(entry: Entry, record: Record, path: pathlib.Path) -> bool:
    """Tell whether a record names this file, or a file in this folder."""
    name = os.path.relpath(path, entry.home)
    return name == "." or any(output == name or output.startswith(f"{name}/") for output in record.outputs)
