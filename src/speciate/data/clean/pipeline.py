"""Turn what a domain's sources yield into the documents that it keeps: normalise, filter, and count every drop."""

import dataclasses
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from speciate.config.contracts.data import FilterOptions
from speciate.data.characters import is_visible
from speciate.data.clean.audit import Audit
from speciate.data.clean.dropped import DroppedSamples
from speciate.data.documents import Document
from speciate.data.passage import Passage

# the C0 and C1 controls and DEL, except newline and tab; the byte order mark
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
LINE_ENDS = "\n\r\x85\u2028\u2029"
"""What Unicode calls the end of a line or paragraph."""
PART_ENDS = "\v\f\x1c-\x1e"
"""Vertical tab, form feed (a page's end), and the separators of files, groups and records."""
NOT_PLAIN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
NOT_PLAIN_RUN = re.compile(f"[{PART_ENDS}]+|{NOT_PLAIN.pattern}")
WINDOWS_1252 = {
    chr(byte): bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xA0) if chr(byte) not in LINE_ENDS
}
"""C1 control -> the dash, quotation mark or letter that Windows-1252 has in its place, as web browsers read it."""
INDENTED_LINE = re.compile(r"\n[^\S\n]+\S")
MAX_CHARACTERS = 16_000_000
"""Length of the largest document, in characters; later stages hold a document whole, several times over."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Why a document is dropped."""

    reason: str
    """A snake_case word under which the drop is counted."""
    note: str = ""
    """What was measured or seen, for readers of the sample."""


class Filter(Protocol):
    """One filter over one shard: what `Filter(options, archives)` in each file of `filters/` returns.

    It sees one document at a time and holds a bounded state. `archives` are the fetched files of the sources that its
    options name.
    """

    @property
    def options(self) -> FilterOptions:
        """The options with which the filter was built."""

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, an edited copy of it, or why it is dropped."""


@dataclass
class CleaningCounts:
    """How much was read and kept, and why the rest was dropped.

    Bytes are UTF-8, before normalising and at the end. Counts of sources and of shards add up.
    """

    read: int = 0
    kept: int = 0
    bytes_read: int = 0
    bytes_kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> number of documents."""
    edited: Counter[str] = field(default_factory=Counter)
    """Kind of filter -> number of kept documents that it changed."""
    raw: Audit = field(default_factory=Audit)
    """Audit of the texts as they came."""
    clean: Audit = field(default_factory=Audit)
    """Audit of the documents kept."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, key) + getattr(other, key) for key in self.__dataclass_fields__))

    def as_json(self) -> dict[str, Any]:
        """Return plain data, with reasons in alphabetical order."""
        numbers = {key: getattr(self, key) for key in ("read", "kept", "bytes_read", "bytes_kept")}
        reasons = {key: dict(sorted(getattr(self, key).items())) for key in ("dropped", "edited")}
        return {**numbers, **reasons, "audit": {"raw": self.raw.as_json(), "clean": self.clean.as_json()}}

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> Self:
        """Return the counts that `as_json` wrote, to be added up over shards."""
        return cls(
            read=written["read"],
            kept=written["kept"],
            bytes_read=written["bytes_read"],
            bytes_kept=written["bytes_kept"],
            dropped=Counter(written["dropped"]),
            edited=Counter(written["edited"]),
            raw=Audit.from_json(written["audit"]["raw"]),
            clean=Audit.from_json(written["audit"]["clean"]),
        )


def normalise(text: str) -> str:
    """Return `text` in NFC, with newlines as line ends, without control characters or surrounding white space.

    Controls that separate become separators: every line end, and a page's, file's, group's or record's end that is not
    at a line end, a newline; the unit separator a space. C1 controls become the characters of Windows-1252, for which
    they stand in nearly all texts. Other controls and byte order marks, which separate nothing, are left out.

    White space at the end and empty lines at the beginning are cut. The first line keeps its indentation if a later
    line is indented too, because code and verse lose their shape otherwise.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if NOT_PLAIN.search(text):  # several times as fast as the substitution, which few texts need
        text = NOT_PLAIN_RUN.sub(_plain, text)
    text = unicodedata.normalize("NFC", text).rstrip()
    body = text.lstrip()
    indent = text[: len(text) - len(body)].rpartition("\n")[2]
    return indent + body if indent and INDENTED_LINE.search(body) else body


def _plain(match: re.Match[str]) -> str:
    """Return what stands in plain text for a control character, or for a run of `PART_ENDS`."""
    found, text = match[0], match.string
    if found in LINE_ENDS:
        return "\n"
    if found[0] in "\v\f\x1c\x1d\x1e":
        neighbours = text[match.start() - 1 : match.start()] + text[match.end() : match.end() + 1]
        return "" if any(character in LINE_ENDS for character in neighbours) else "\n"
    return " " if found == "\x1f" else WINDOWS_1252.get(found, "")


def group_name(group: str | None, text: str) -> str:
    """Return the name of a document's group: as its source gives it, in NFC, or else a digest of its text.

    So the split of a document follows from what it says, and not from its file, its row, or how a name is encoded.
    """
    if group is not None:
        return unicodedata.normalize("NFC", group)
    return f"text:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def drop_if_too_large(document: Document) -> Drop | None:
    """Return the drop of a document beyond 16 million characters, else None.

    Filters whose memory grows with a document call this first.
    """
    length = len(document.text)
    return Drop("too_large", f"{length} characters") if length > MAX_CHARACTERS else None


def clean_passages(
    domain: str,
    source: str,
    passages: Iterable[Passage],
    filters: Sequence[Filter],
    *,
    counts: CleaningCounts,
    samples: DroppedSamples,
) -> Iterator[Document]:
    """Yield the documents of `source` that every filter keeps, in order; fill `counts` and `samples` on the way.

    The source's name in front makes ids unique in the domain. Groups have no such prefix: a group that two sources of a
    domain share is one group. Before any filter, a record without text is dropped for the fault that its source found
    (`null` where it found none), a text with half a surrogate pair as `lone_surrogate`, and a text that shows nothing
    after normalising as `empty`. After all filters, which may cut it, a text of over 16 million characters is dropped
    as `too_large`.
    """
    for passage in passages:
        counts.read += 1
        raw = Document(f"{source}/{passage.id}", domain, "", passage.text or "")
        document, edited = raw, dict[str, int]()
        verdict = _drop_if_unreadable(passage, counts)
        if verdict is None:
            counts.raw.add(raw.text)
            text = normalise(raw.text)
            document = Document(raw.id, domain, group_name(passage.group, text), text)
            document, edited, verdict = _apply_filters(document, filters)
        if verdict is not None:
            kind, drop = verdict
            counts.dropped[drop.reason] += 1
            samples.add(document, drop.reason, kind, drop.note)
            continue
        if passage.group is None and edited:  # equal texts are one group, also where filters made them equal
            document = dataclasses.replace(document, group=group_name(None, document.text))
        counts.kept += 1
        counts.bytes_kept += len(document.text.encode())
        counts.edited.update(edited)
        counts.clean.add(document.text)
        yield document


def _drop_if_unreadable(passage: Passage, counts: CleaningCounts) -> tuple[str, Drop] | None:
    """Count the bytes of a passage, and return the drop of one that is not text."""
    if passage.text is None:
        return "clean", Drop(passage.fault or "null")
    try:
        counts.bytes_read += len(passage.text.encode())
    except UnicodeEncodeError as error:
        counts.bytes_read += len(passage.text.encode("utf-8", "surrogatepass"))
        code = ord(passage.text[error.start])
        return "clean", Drop("lone_surrogate", f"U+{code:04X} at character {error.start}")
    return None


def _apply_filters(
    document: Document, filters: Sequence[Filter]
) -> tuple[Document, dict[str, int], tuple[str, Drop] | None]:
    """Return what the filters make of a normalised document, the kinds that edited it, and the drop if there is one."""
    edited: dict[str, int] = {}
    if not is_visible(document.text):
        return document, edited, ("clean", Drop("empty"))
    for document_filter in filters:
        result = document_filter.apply(document)
        if isinstance(result, Drop):
            return document, edited, (document_filter.options.kind, result)
        if result.text != document.text:
            edited[document_filter.options.kind] = 1
        document = result
        if not is_visible(document.text):
            return document, edited, (document_filter.options.kind, Drop("empty", "nothing is left"))
    drop = drop_if_too_large(document)
    return document, edited, ("clean", drop) if drop else None
