"""The user's own files, named by globs: jsonl, txt (each also .gz or .zst) and parquet, told apart by their suffix.

Decision: nothing is copied. `fetch` writes an inventory, the paths with their sizes and sha256, and `read` refuses
files that are no longer those. A shard takes every n-th file, or every n-th record where there are fewer files than
shards; a record is called file#row (or by its `id`), so its name does not depend on the number of shards. A txt file is
one record with the one column `text`. Memory is bounded by the longest line, not by the file.
"""

import collections
import glob
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, Strict

from speciate.config import components
from speciate.config.contracts.data import SourceOptions
from speciate.config.run import read_spec
from speciate.data.fetch.formats import FILE_READERS, read_rows
from speciate.data.fetch.records import RecordParser
from speciate.data.passage import Passage
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Texts in files of your own."""

    sharded: ClassVar[bool] = True

    paths: Annotated[tuple[str, ...], Strict(False)] = Field(min_length=1)
    """Globs of files (.jsonl, .txt, both also .gz or .zst; .parquet), relative to where the workflow runs; `**` is any
    folders."""
    text: str = Field("text", min_length=1)
    """The column that holds the text, or a template that names columns: "{question}\\n\\n{answer}"."""
    id: str | None = None
    """The column that names a record; without one it is called file#row, rows counted from 1."""
    group: str | None = None
    """A column whose value groups records that must not straddle a split; without one each stands alone."""
    bad_records: Literal["refuse", "drop"] = "refuse"
    """A record that cannot be read: stop there and name it, or drop and count it under its fault."""

    def local_globs(self) -> tuple[str, ...]:
        """Return the globs that the config sets."""
        return self.paths


class InventoryEntry(components.Strict):
    """One file of an inventory."""

    path: str
    bytes: int
    sha256: str


class Inventory(components.Strict):
    """What `fetch` writes: the files of one shard, and which of their records are its own."""

    source: str
    shard: str
    every: Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]], Strict(False)]
    """The first record and the step to the next."""
    files: Annotated[tuple[InventoryEntry, ...], Strict(False)]


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Writes the inventory of this shard's files to `target`, as JSON.

    Raises:
        ValueError: a glob that matches no file, a file of no known format, or a `text` that is no template.
    """
    RecordParser(options, name)
    found = _matching_files(options, name)
    by_file = len(found) >= shard.count
    share = found[shard.index :: shard.count] if by_file else found
    entries = tuple(InventoryEntry(path=path, bytes=os.path.getsize(path), sha256=_sha256(path)) for path in share)
    every = (0, 1) if by_file else (shard.index, shard.count)
    inventory = Inventory(source=name, shard=str(shard), every=every, files=entries)
    target.write_text(inventory.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """The texts of the files in the inventory `archive`, in its order.

    Raises:
        ValueError: a file that is gone, changed, cut off or corrupt, or a record as `Records.passage` says.
    """
    records = RecordParser(options, name)
    inventory = read_spec(Inventory, archive)
    if inventory.source != name:
        raise ValueError(f"source {name}: {archive} is the inventory of source {inventory.source}")
    start, step = inventory.every
    count = itertools.count()
    for entry in inventory.files:
        path = entry.path
        where = f"source {name}: file {path}"
        before = _check_unchanged(entry, where)
        for row, record in read_rows(path, records, where):
            if next(count) % step == start:
                yield records.to_passage(record(), _record_name(path, row), f"{where}: row {row}" if row else where)
        if _file_state(path, where) != before:
            raise ValueError(f"{where} was changed while it was read; start again")


def _record_name(path: str, row: int) -> str:
    """The name of a record: the file's where it has just the one."""
    return f"{path}#{row}" if row else path


def _matching_files(options: Options, name: str) -> list[str]:
    """Every file that a glob matches, once, sorted."""
    found: dict[str, None] = {}
    for pattern in options.paths:
        matched = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
        if not matched:
            raise ValueError(f"source {name}: paths: no file matches {pattern} (from {pathlib.Path.cwd()})")
        for path in matched:
            if not path.endswith(tuple(FILE_READERS)):
                raise ValueError(f"source {name}: paths: {path} has no known format: {', '.join(FILE_READERS)}")
            if not path.isprintable():
                raise ValueError(f"source {name}: paths: {path!r} is not a name that can be written as text; rename it")
            found[pathlib.Path(path).as_posix()] = None
    doubled = [path for path, times in collections.Counter(map(os.path.realpath, found)).items() if times > 1]
    if doubled:
        raise ValueError(f"source {name}: paths: {doubled[0]} is matched under two names")
    return sorted(found)


def _sha256(path: str) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _file_state(path: str, where: str) -> tuple[int, int]:
    """Size and time of the last change. Raises ValueError where the file is gone."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise ValueError(f"{where} has disappeared since it was fetched") from None
    return found.st_size, found.st_mtime_ns


def _check_unchanged(entry: InventoryEntry, where: str) -> tuple[int, int]:
    """The file's state. Raises ValueError unless it holds the bytes of the inventory."""
    state = _file_state(entry.path, where)
    if state[0] != entry.bytes:
        raise ValueError(f"{where} has {state[0]} bytes, not the {entry.bytes} it had when it was fetched")
    got = _sha256(entry.path)
    if got != entry.sha256:
        raise ValueError(f"{where} has changed since it was fetched: expected sha256 {entry.sha256}, got {got}")
    return state
