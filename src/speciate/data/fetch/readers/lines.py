"""Read a member as one text a line: what corpora of short articles are often written as."""

from collections.abc import Iterator

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch.encodings import decode_utf8
from speciate.data.passage import Passage


class Options(ReaderOptions):
    """One text per line."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """Yield each line that is not blank, named member#line with lines counted from 1.

    Raises:
        ReadingError: the member is not UTF-8; the message has `where`.
    """
    for number, line in enumerate(decode_utf8(data, where).splitlines(), start=1):
        if line.strip():
            yield Passage(f"{member}#{number}", None, line, place=f"line {number}")
