"""Read members of JSON whose texts lie deep: a path leads to the records, and paths in a record lead to its text.

A path is keys joined by dots; `*` stands for every item of a list or object, in order. A member may hold one JSON
value, or one a line, and may be compressed. So one reader serves `{"problems": {"P1": {"solution": {"steps": [...]}}}}`
and a .jsonl.gz file alike.
"""

import io
import json
from collections.abc import Iterator
from typing import Annotated, Any

import pydantic
from pydantic import Field

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch.decompress import open_by_magic
from speciate.data.fetch.encodings import decode_utf8
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError, explain_errors

Step = tuple[str, Any]


class Options(ReaderOptions):
    """Texts inside JSON values."""

    records: str = ""
    """Path from the top to the records, such as `problems.*`. Without it, each JSON value is a record."""
    text: Annotated[tuple[str, ...], pydantic.Strict(False)] = Field(min_length=1)
    """Paths within a record; all strings that they lead to, in this order, make up its text."""
    join: str = ""
    """What stands between these strings."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """Yield the text of each record, named member#keys, with values of a member of lines counted from 1.

    Raises:
        ReadingError: the member is damaged or not JSON, or a path leads nowhere; the message has `where`.
    """
    with explain_errors(where):
        content = open_by_magic(io.BytesIO(data), where).read()
    for number, value in _values(decode_utf8(content, where), where):
        records = list(follow(value, options.records))
        if not records:
            raise ReadingError(f"{where}: records: {options.records} leads to nothing")
        for keys, record in records:
            name = ".".join(filter(None, (number, keys)))
            strings = [
                _string(text, path, f"{where}: {name}") for path in options.text for text in _texts(record, path)
            ]
            if not strings:
                raise ReadingError(f"{where}: {name}: text: {', '.join(options.text)} leads to nothing")
            yield Passage(f"{member}#{name}", None, options.join.join(strings), place=name)


def _values(content: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield the JSON value of a member without a number, or the value of each line with the line's number."""
    try:
        yield "", json.loads(content)
    except json.JSONDecodeError as whole:
        lines = [(number, line) for number, line in enumerate(content.splitlines(), start=1) if line.strip()]
        if len(lines) < 2:
            raise ReadingError(f"{where}: is not JSON: {whole.msg} at character {whole.pos}") from None
        for number, line in lines:
            try:
                yield str(number), json.loads(line)
            except json.JSONDecodeError as error:
                raise ReadingError(f"{where}: line {number} is not JSON: {error.msg}") from None


def follow(value: Any, path: str) -> Iterator[Step]:
    """Yield what a path leads to, each with the keys that `*` stood for; nothing where it leads nowhere."""
    found: list[Step] = [("", value)]
    for key in path.split(".") if path else ():
        reached: list[Step] = []
        for keys, item in found:
            if key == "*":
                children = item.items() if isinstance(item, dict) else enumerate(item if isinstance(item, list) else ())
                reached += [(".".join(filter(None, (keys, str(name)))), child) for name, child in children]
            elif isinstance(item, dict) and key in item:
                reached.append((keys, item[key]))
        found = reached
    yield from found


def _texts(record: Any, path: str) -> list[Any]:
    return [text for _, text in follow(record, path)]


def _string(text: Any, path: str, where: str) -> str:
    if not isinstance(text, str):
        raise ReadingError(f"{where}: text: {path} leads to {type(text).__name__}, not text")
    return text
