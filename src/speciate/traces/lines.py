"""Read files of lines, so that what is wrong with one is said with its number."""

import csv
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any


def read_json_lines(
    path: pathlib.Path, when_cut: Callable[[str], None] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each line's number, from 1, and its object; empty lines are skipped.

    Args:
        path: the file.
        when_cut: called with a sentence if the file's last line ends in the middle, as of a writer that was stopped;
            by default that is an error, as it is in any other line.

    Raises:
        ValueError: a line is not a JSON object; names the file and line.
    """
    with path.open("rb") as file:
        number = 0
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                where = f"{path}, line {number}"
                if not line.endswith(b"\n") and when_cut is not None and number > 1:
                    when_cut(f"{where} is cut off and was left out: the writer was stopped, and what followed is lost.")
                    return
                raise ValueError(f"{where}: is not JSON ({error}); the file is damaged or not a trace") from None
            if not isinstance(found, dict):
                raise ValueError(f"{path}, line {number}: is not an object {{...}} but {type(found).__name__}")
            yield number, found
    if not number:
        raise ValueError(f"{path}: is empty")


def first_json_line(path: pathlib.Path, most: int = 1 << 22) -> dict[str, Any] | None:
    """Return the object on a file's first line, or None if there is no such thing.

    Args:
        path: any file.
        most: bytes of the line that are read at most.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        line = file.readline(most)
        while line and not line.strip():
            line = file.readline(most)
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return _keys_of_a_cut_line(line)
    return found if isinstance(found, dict) else None


def _keys_of_a_cut_line(line: bytes) -> dict[str, Any] | None:
    """Return the keys of an object that ends in the middle, so that its format is still recognised."""
    decoder = json.JSONDecoder()
    text, found = line.decode("utf-8", "replace").lstrip()[1:], dict[str, Any]()
    while text := text.lstrip(" ,\t"):
        try:
            key, end = decoder.raw_decode(text)
        except ValueError:
            break
        if not isinstance(key, str):
            break
        found[key] = None
        rest = text[end:].lstrip().removeprefix(":").lstrip()
        try:
            found[key], end = decoder.raw_decode(rest)
        except ValueError:
            break
        text = rest[end:]
    return found or None


def csv_header(path: pathlib.Path) -> list[str] | None:
    """Return the column names on a file's first line, or None if it is no text with a comma."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    try:
        text = line.decode("utf-8-sig").strip()
    except UnicodeError:
        return None
    if "," not in text or "\0" in text or text.startswith(("{", "[")):
        return None
    return [name.strip() for name in next(csv.reader([text]))]
