"""Read members of JSON lines: each line is one record, an object whose keys are the columns."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch.encodings import BYTE_ORDER_MARK, other_encoding
from speciate.data.fetch.records import NO_COLUMN, RecordParser, parse_json_line
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError


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
        ReadingError: a line is not JSON or not UTF-8, the member is UTF-16, or a column is wrong; the message names
            `where` and the line.
    """
    parser = RecordParser(options, where)
    lines = data.split(b"\n")
    problem = other_encoding(lines[0])
    if problem:
        raise ReadingError(f"{where} {problem}")
    some_record_checked = False
    for number, line in enumerate(lines, start=1):
        if not line.removeprefix(BYTE_ORDER_MARK).strip():
            continue
        passage = parser.to_passage(parse_json_line(line), f"{member}#{number}", f"{where}: line {number}")
        if passage.fault == NO_COLUMN and not some_record_checked:
            parser.check_some_record((parse_json_line(each) for each in lines if each.strip()), where)
            some_record_checked = True
        yield passage
