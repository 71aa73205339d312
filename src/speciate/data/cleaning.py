"""From what the sources of a domain give to the documents that it keeps: normalise, filter, count every drop."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from speciate.data.documents import Document, Passage

# the C0 and C1 controls and DEL, save newline and tab; the byte order mark
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")


class Filter(Protocol):
    """One pass of one filter over one domain: what `Filter` in each file of `filters/` offers."""

    def reason(self, document: Document) -> str | None:
        """Why `document` is dropped, or None to keep it."""


@dataclass
class Counts:
    """What went in, what stayed, and why the rest did not; bytes are UTF-8, before and after normalising."""

    read: int = 0
    kept: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Plain data, reasons in alphabetical order."""
        return {**asdict(self), "dropped": dict(sorted(self.dropped.items()))}


def normalise(text: str) -> str:
    """`text` in Unicode's composed form (NFC), lines ended by a newline, without control characters or outer space."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", CONTROLS.sub("", text)).strip()


def clean(
    domain: str, source: str, passages: Iterable[Passage], filters: list[Filter], counts: Counts
) -> Iterator[Document]:
    """The documents of `source` that every filter keeps, in order, counted in `counts` as they pass.

    Ids and groups become unique in the domain by the source's name in front. A text that is empty once normalised is
    dropped before any filter sees it.

    Raises:
        ValueError: a source gives one id twice.
    """
    seen: set[str] = set()
    for passage in passages:
        if passage.id in seen:
            raise ValueError(f"source {source}: two texts are called {passage.id}")
        seen.add(passage.id)
        counts.read += 1
        counts.bytes_read += len(passage.text.encode())
        text = normalise(passage.text)
        document = Document(f"{source}/{passage.id}", domain, f"{source}/{passage.group}", text)
        reason = next(filter(None, (each.reason(document) for each in filters)), None) if text else "empty"
        if reason:
            counts.dropped[reason] += 1
            continue
        counts.kept += 1
        counts.bytes_kept += len(text.encode())
        yield document
