"""A member holds one JSON object a line, and a text under one of its keys."""

import json
from collections.abc import Iterator

from pydantic import Field

from speciate.data.archive import utf8
from speciate.data.documents import Passage
from speciate.kinds import Kind


class Options(Kind):
    """One text a line of JSON."""

    key: str = Field("text", min_length=1)
    """The key that holds the text."""
    group: str | None = None
    """A key whose value groups lines that must not straddle a split; without one each line stands alone."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """The texts of the member's lines, each under 'member:line', lines counted from 1; blank lines are skipped.

    Raises:
        ValueError: not UTF-8, not JSON, or no string under a key; names `where` and the line.
    """
    for number, line in enumerate(utf8(data, where).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: line {number} is not JSON: {error.msg}") from None
        text = record.get(options.key) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"{where}: line {number} has no text under '{options.key}'")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"{where}: line {number} holds half a surrogate pair, which UTF-8 cannot write")
        name = f"{member}:{number}"
        if options.group is None:
            yield Passage(name, name, text)
        elif isinstance(record.get(options.group), str | int):
            yield Passage(name, str(record[options.group]), text)
        else:
            raise ValueError(f"{where}: line {number} has no group under '{options.group}'")
