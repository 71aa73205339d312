"""Read somebody's labelled texts: JSON lines, parquet and plain text, compressed or not.

A plain text is one document, and its label is the folder that it lies in. A record is one document; its label is the
column that `TextColumns.label` names.
"""

import glob
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from speciate.data.fetch import formats
from speciate.data.fetch.records import BadRecord, RecordParser
from speciate.data.reading_errors import ReadingError
from speciate.selection.text import Text


@dataclass(frozen=True)
class TextColumns:
    """Which columns of a record hold what."""

    text: str = "text"
    """A column, or a template of columns: "{question}\\n\\n{answer}"."""
    label: str | None = None
    id: str | None = None
    group: str | None = None
    bad_records: Literal["refuse", "drop"] = "refuse"


def find_files(patterns: Sequence[str]) -> list[pathlib.Path]:
    """Return the files that patterns name, sorted. A folder stands for every file in it whose format is known.

    Raises:
        ValueError: a pattern names no file, or a file of no known format; names it.
    """
    found: dict[pathlib.Path, None] = {}
    for pattern in patterns:
        paths = [pathlib.Path(path) for path in glob.glob(os.path.expanduser(pattern), recursive=True)]
        if not paths and pathlib.Path(pattern).exists():  # a name with brackets in it
            paths = [pathlib.Path(pattern)]
        files = [path for path in paths if path.is_file()]
        unknown = [path for path in files if formats.format_of(path.name) is None]
        if unknown:
            known = ", ".join(formats.SUFFIXES)
            raise ValueError(
                f"--texts: {unknown[0]}: no text can be read from it; known are {known} and compressed ones"
            )
        inside = [path for folder in paths if folder.is_dir() for path in folder.rglob("*")]
        files += [path for path in inside if path.is_file() and formats.format_of(path.name)]
        if not files:
            raise ValueError(f"--texts: {pattern}: names no file with texts")
        found |= dict.fromkeys(sorted(files))
    return list(found)


def read_texts(patterns: Sequence[str], columns: TextColumns) -> list[Text]:
    """Return the texts of all files, without those that are empty.

    Args:
        patterns: files, folders, and patterns such as `texts/*.jsonl`.
        columns: which columns hold text, label, name and group.

    Raises:
        ValueError: there is no text; two texts have the same name; names it.
        ReadingError: a file or record cannot be read, or lacks a column; names file and line.
    """
    texts: dict[str, Text] = {}
    files = find_files(patterns)
    roots = [pathlib.Path(pattern) for pattern in patterns if pathlib.Path(pattern).is_dir()]
    for file in files:
        for text in _read_file(file, columns, _folder_label(file, roots)):
            if text.document in texts:
                raise ValueError(f"--texts: two texts are named {text.document!r}; name a column that tells them apart")
            if text.text.strip():
                texts[text.document] = text
    if not texts:
        raise ValueError(f"--texts: {', '.join(patterns)}: there is no text in it")
    return list(texts.values())


def _folder_label(file: pathlib.Path, roots: list[pathlib.Path]) -> str:
    """Return the folder that a plain text lies in; empty where that is the folder that was named itself."""
    return "" if file.parent in roots else file.parent.name


def _read_file(file: pathlib.Path, columns: TextColumns, folder_label: str) -> Iterator[Text]:
    is_plain = formats.format_of(file.name) == "text"
    parser = RecordParser(TextColumns() if is_plain else columns, str(file))
    label = None if is_plain else columns.label
    if label and label not in parser.columns:
        parser.columns = (*parser.columns, label)
    for row, decode in formats.read_rows(str(file), parser, str(file)):
        record, where = decode(), f"{file}: line {row}" if row else str(file)
        passage = parser.to_passage(record, f"{file}#{row}" if row else str(file), where)
        if passage.text is None or isinstance(record, BadRecord):
            continue
        value = folder_label if is_plain else record.get(label, "") if label else ""
        if value is None or isinstance(value, (dict, list, float)):
            raise ReadingError(f"{where}: column '{label}' is the label but holds {type(value).__name__}")
        yield Text(passage.id, passage.text, str(value), passage.group or "")
