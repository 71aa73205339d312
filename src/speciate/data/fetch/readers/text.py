"""A member is one text: UTF-8, as it stands."""

from collections.abc import Iterator

from speciate.config.contracts.data import ReaderOptions
from speciate.data.fetch.archive import decode_utf8
from speciate.data.passage import Passage


class Options(ReaderOptions):
    """One text a member."""


def read(options: Options, member: str, data: bytes, where: str) -> Iterator[Passage]:
    """The member's text under the member's name. Raises ValueError with `where` if it is not UTF-8."""
    yield Passage(member, member, decode_utf8(data, where))
