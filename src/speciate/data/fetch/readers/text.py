"""Read a member as one UTF-8 text, unchanged."""

from collections.abc import Iterator

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch.encodings import decode_utf8
from speciate.data.passage import Passage


class Options(ReaderOptions):
    """One text per member."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """Yield the member's text under the member's name. Raise ReadingError with `where` if it is not UTF-8."""
    yield Passage(member, None, decode_utf8(data, where))
