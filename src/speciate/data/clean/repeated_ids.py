"""Refuse a source in which two records have the same id, and name both."""

import hashlib
from collections.abc import Callable, Generator, Iterable

from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError


def refuse_repeated_ids(source: str, read: Callable[[], Iterable[Passage]]) -> Generator[Passage, None, None]:
    """Yield the passages that `read` gives; about 80 bytes are kept of each.

    `cluster` refuses repeated ids as well, also where they are in two shards, but no longer knows the files.

    Raises:
        ReadingError: two passages with text have the same id; the message names `source`, the id and both places.
    """
    seen: set[int] = set()
    for number, passage in enumerate(read(), start=1):
        if passage.text is not None:
            digest = int.from_bytes(hashlib.blake2b(passage.id.encode(), digest_size=8).digest(), "big")
            if digest in seen:
                first = _first_of(passage.id, read(), number)
                if first:
                    places = f"{first}, and {_place(passage, number)}"
                    raise ReadingError(f"source {source}: two records have the id {passage.id!r}: {places}")
            seen.add(digest)
        yield passage


def _first_of(id_: str, passages: Iterable[Passage], stop: int) -> str | None:
    """Return the place of the first passage before number `stop` that has this id."""
    for number, passage in enumerate(passages, start=1):
        if number == stop:
            return None
        if passage.id == id_ and passage.text is not None:
            return _place(passage, number)
    return None


def _place(passage: Passage, number: int) -> str:
    return passage.place or f"record {number}"
