"""The user's own files, named by globs: jsonl, text and parquet, told apart by their suffix or by `format`.

Decision: nothing is copied. `fetch` writes an inventory, the paths with their sizes and sha256, and `read` refuses
files that have changed since. A shard takes every n-th file, or every n-th record where there are fewer files than
shards. A record is named file#row (or by its `id`), so its name does not depend on the number of shards. A txt file is
one record with the single column `text`. The longest line bounds the memory, not the file.
"""

import collections
import glob
import hashlib
import itertools
import os
import pathlib
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, Strict

from speciate.config import components
from speciate.config.contracts.data import SourceOptions, matching_paths
from speciate.config.run import read_spec
from speciate.data.fetch.decompress import COMPRESSIONS
from speciate.data.fetch.formats import SUFFIXES, format_of, read_rows
from speciate.data.fetch.records import NO_COLUMN, RecordParser
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Texts in the user's own files."""

    paths: Annotated[tuple[str, ...], Strict(False)] = Field(min_length=1)
    """Globs of files (.jsonl, .txt, both also .gz, .zst, .bz2 or .xz; .parquet), relative to the folder in which the
    workflow runs; `**` matches any number of folders."""
    format: Literal["jsonl", "text", "parquet"] | None = None
    """How the files are read, whatever their names end in; `text` reads .md, .csv, .py and the like as plain text, one
    document a file. Without it, the name tells."""
    text: str = Field("text", min_length=1)
    """The column that holds the text, or a template that names columns: "{question}\\n\\n{answer}"."""
    id: str | None = None
    """The column that names a record. Without it a record is named file#row, with rows counted from 1."""
    group: str | None = None
    """A column whose value groups records that must stay in one split. Without it each record stands alone."""
    bad_records: Literal["refuse", "drop"] = "refuse"
    """What to do with a record that cannot be read: stop and name it, or drop it and count it under its fault."""

    @property
    def sharded(self) -> bool:
        """Whether each shard fetches a part of the source: every n-th file or record."""
        return True

    def local_globs(self) -> tuple[str, ...]:
        """Return the globs that the config sets."""
        return self.paths


class InventoryEntry(components.Strict):
    """One file of an inventory."""

    path: str
    bytes: int
    sha256: str


class Inventory(components.Strict):
    """What `fetch` writes: the files of one shard, and which of their records belong to it."""

    source: str
    shard: str
    every: Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]], Strict(False)]
    """Index of the first record, and the step to the next."""
    files: Annotated[tuple[InventoryEntry, ...], Strict(False)]


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Write the inventory of this shard's files to `target`, as JSON.

    Raises:
        ReadingError: a glob matches no file or a folder, or a file has no known format.
        ValueError: `text` is not a template.
    """
    RecordParser(options, name)
    matched = _matching_files(options, name)
    by_file = len(matched) >= shard.count
    shard_files = matched[shard.index :: shard.count] if by_file else matched
    entries = tuple(
        InventoryEntry(path=path, bytes=os.path.getsize(path), sha256=_sha256(path)) for path in shard_files
    )
    every = (0, 1) if by_file else (shard.index, shard.count)
    inventory = Inventory(source=name, shard=str(shard), every=every, files=entries)
    target.write_text(inventory.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the texts of the files in the inventory `archive`, in its order.

    Raises:
        ReadingError: a file has disappeared, changed, is truncated or corrupt, or a record fails as in
            `RecordParser.to_passage`.
    """
    parser = RecordParser(options, name)
    inventory = read_spec(Inventory, archive)
    if inventory.source != name:
        raise ReadingError(f"source {name}: {archive} is the inventory of source {inventory.source}")
    start, step = inventory.every
    counter = itertools.count()
    for entry in inventory.files:
        path = entry.path
        where = f"source {name}: file {path}"
        state = _check_unchanged(entry, where)
        some_record_checked = False
        for row, record in read_rows(path, parser, where, file_format=options.format):
            if next(counter) % step != start:
                continue
            passage = parser.to_passage(record(), _record_name(path, row), f"{where}: row {row}" if row else where)
            if passage.fault == NO_COLUMN and not some_record_checked:
                rows = read_rows(path, parser, where, file_format=options.format)
                parser.check_some_record((each() for _, each in rows), where)
                some_record_checked = True
            yield passage
        if _file_state(path, where) != state:
            raise ReadingError(f"{where} was changed while it was read; start again")


def _record_name(path: str, row: int) -> str:
    """Return the name of a record: the file's name where the file is one record."""
    return f"{path}#{row}" if row else path


def _matching_files(options: Options, name: str) -> list[str]:
    """Return every file that a glob matches, once, sorted."""
    paths: dict[str, None] = {}
    for pattern in options.paths:
        matched = matching_paths(pattern)
        files = [path for path in matched if os.path.isfile(path)]
        if not files:
            raise ReadingError(f"source {name}: paths: {_explain_no_file(pattern, matched)}")
        for path in files:
            if options.format is None and format_of(path) is None:
                raise ReadingError(
                    f"source {name}: paths: {path} has no known format: {', '.join(SUFFIXES)} (the first two also "
                    f"{', '.join(COMPRESSIONS)}); set `format: text` to read it as plain text"
                )
            if fault := _name_fault(path):
                raise ReadingError(f"source {name}: paths: {path!r} {fault}; rename it")
            paths[pathlib.Path(path).as_posix()] = None
    duplicates = [path for path, count in collections.Counter(map(os.path.realpath, paths)).items() if count > 1]
    if duplicates:
        raise ReadingError(f"source {name}: paths: {duplicates[0]} is matched under two names")
    return sorted(paths)


def _explain_no_file(pattern: str, matched: list[str]) -> str:
    """Return why a pattern gives nothing to read, and what to write in its place."""
    if not matched:
        return f"no file matches {pattern} (from {pathlib.Path.cwd()})"
    folder = next((path.rstrip("/") for path in matched if os.path.isdir(path)), None)
    if folder is None:
        return f"{matched[0]} is neither a file nor a folder"
    inside = glob.escape(folder)
    advice = f"write {inside}/* for the files in it, or {inside}/**/* for those in its folders too"
    if pattern.rstrip("/") != folder:
        return f"{pattern} matches no file, only folders such as {folder}: {advice}"
    return f"{pattern} is a folder: {advice}"


def _name_fault(path: str) -> str | None:
    """Return why a file cannot have this name, or None. Names are written into files of UTF-8 and into lines."""
    for character in path:
        match unicodedata.category(character):
            case "Cs":
                return "is a name that is not UTF-8, so it cannot be written down as text"
            case "Cc" | "Zl" | "Zp":
                return f"has the control character or line break U+{ord(character):04X} in its name"
    return None


def _sha256(path: str) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _file_state(path: str, where: str) -> tuple[int, int]:
    """Return a file's size and the time of its last change. Raise ReadingError if it has disappeared."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ReadingError(f"{where} has disappeared since it was fetched") from None
    return status.st_size, status.st_mtime_ns


def _check_unchanged(entry: InventoryEntry, where: str) -> tuple[int, int]:
    """Return the file's state. Raise ReadingError unless it holds the bytes of the inventory."""
    state = _file_state(entry.path, where)
    if state[0] != entry.bytes:
        raise ReadingError(f"{where} has {state[0]} bytes, not the {entry.bytes} it had when it was fetched")
    digest = _sha256(entry.path)
    if digest != entry.sha256:
        raise ReadingError(f"{where} has changed since it was fetched: expected sha256 {entry.sha256}, got {digest}")
    return state
