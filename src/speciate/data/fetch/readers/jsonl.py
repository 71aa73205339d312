"""A member holds one JSON object a line: a record, whose columns are the keys."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch.archive import decode_utf8
from speciate.data.fetch.records import RecordParser, parse_json_line
from speciate.data.passage import Passage


class Options(ReaderOptions):
    """One text a line of JSON."""

    text: str = Field("text", min_length=1)
    """The key that holds the text, or a template that names keys: "{question}\\n\\n{answer}"."""
    id: str | None = None
    """The key that names a line; without one it is called member#line, lines counted from 1."""
    group: str | None = None
    """A key whose value groups lines that must not straddle a split; without one each line stands alone."""
    bad_records: Literal["refuse", "drop"] = "refuse"
    """A line that is no record: stop there and name it, or drop and count it under its fault."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """The texts of the member's lines; blank lines are skipped.

    Raises:
        ValueError: not UTF-8, not JSON, or a wrong column; names `where` and the line.
    """
    records = RecordParser(options, where)
    for number, line in enumerate(decode_utf8(data, where).split("\n"), start=1):
        if line.strip():
            yield records.to_passage(parse_json_line(line), f"{member}#{number}", f"{where}: line {number}")
