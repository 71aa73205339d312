"""Read members of JSON lines: each line is one record, an object whose keys are the columns."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch.archive import decode_utf8
from speciate.data.fetch.records import RecordParser, parse_json_line
from speciate.data.passage import Passage


class Options(ReaderOptions):
    """One text per line of JSON."""

    text: str = Field("text", min_length=1)
    """The key that holds the text, or a template that names keys: "{question}\\n\\n{answer}"."""
    id: str | None = None
    """The key that names a line. Without it a line is named member#line, with lines counted from 1."""
    group: str | None = None
    """A key whose value groups lines that must stay in one split. Without it each line stands alone."""
    bad_records: Literal["refuse", "drop"] = "refuse"
    """What to do with a line that cannot be read: stop and name it, or drop it and count it under its fault."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """Yield the texts of the member's lines; blank lines are skipped.

    Raises:
        ValueError: the member is not UTF-8, a line is not JSON, or a column is wrong; the message names `where` and the
            line.
    """
    parser = RecordParser(options, where)
    for number, line in enumerate(decode_utf8(data, where).split("\n"), start=1):
        if line.strip():
            yield parser.to_passage(parse_json_line(line), f"{member}#{number}", f"{where}: line {number}")
