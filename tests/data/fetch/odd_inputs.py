"""Generate odd but possible inputs from a seed, each with what must be read from it; and damage them.

What must be read is known from how an input is made, and never from the code under test.
"""

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

MARK = b"\xef\xbb\xbf"
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
SKIPPABLE = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
LETTERS = "abc \té\u0301ßжλ漢字😀\u2028\u00a0\ufeff"


@dataclass
class Odd:
    """An input, and what must be read from it."""

    name: str
    data: bytes
    rows: list[tuple[int, str | None, str | None, str | None]] = field(default_factory=list)
    """Of each record its row, text, fault and id (None: it has none of its own)."""
    refused: str | None = None
    """A regular expression of the message, where nothing may be read at all."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Options of the source or reader."""

    @property
    def first_bad(self) -> int | None:
        """The row of the first bad record."""
        return next((row for row, _, fault, _ in self.rows if fault), None)


def words(draw: random.Random, least: int = 0) -> str:
    return "".join(draw.choice(LETTERS) for _ in range(draw.randint(least, 12)))


def packed(draw: random.Random, data: bytes, suffix: str) -> bytes:
    """Compress as one stream or as several, with what a file may have between and behind them."""
    pack, parts = PACK[suffix], [data]
    while draw.random() < 0.5:
        at = draw.randint(0, len(parts[-1]))
        parts[-1:] = [parts[-1][:at], parts[-1][at:]]
    between = b""
    if suffix == ".zst":
        between = draw.choice([b"", SKIPPABLE])
    elif suffix == ".xz":
        between = bytes(draw.choice([0, 4, 512]))
    return between.join(map(pack, parts)) + bytes(draw.choice([0, 0, 4, 512]))


def is_whole(data: bytes, name: str) -> bool:
    """Tell whether compressed data end where a stream or its padding ends."""
    suffix = name[name.rindex(".") :]
    data = data.replace(SKIPPABLE, b"") if suffix == ".zst" else data
    while data:
        stream = {
            ".gz": lambda: zlib.decompressobj(31),
            ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
            ".bz2": bz2.BZ2Decompressor,
            ".xz": lzma.LZMADecompressor,
        }[suffix]()
        stream.decompress(data)
        if not stream.eof:
            return False
        data = stream.unused_data.lstrip(b"\0")
    return True


def jsonl(draw: random.Random) -> Odd:
    """Make lines of which some are bad, and perhaps compress them."""
    lines, rows = [], []
    for row in range(1, draw.randint(2, 9)):
        line, text, fault = draw.choice(LINES)(draw)
        lines.append(draw.choice([b"", b"", MARK]) + line + draw.choice([b"", b"", b"\r"]))
        if fault != "blank":
            rows.append((row, text, fault, None))
    lines.insert(0, b'{"text": "first"}')
    rows = [(1, "first", None, None)] + [(row + 1, *rest) for row, *rest in rows]  # type: ignore[misc]
    data = b"\n".join(lines) + draw.choice([b"", b"\n", b"\n\n"])
    suffix = draw.choice(["", "", *PACK])
    return Odd(f"odd.jsonl{suffix}", packed(draw, data, suffix) if suffix else data, rows)


Line = tuple[bytes, str | None, str | None]


def _good(draw: random.Random) -> Line:
    text = words(draw)
    record = {"text": text, "other": draw.choice([None, 1, [{"text": 1}], {"text": "inner"}])}
    pairs = list(record.items())
    draw.shuffle(pairs)
    return json.dumps(dict(pairs), ensure_ascii=draw.random() < 0.5).encode(), text, None


def _cut(draw: random.Random) -> Line:
    line = b'{"text": "cut off"}'
    return line[: draw.randint(1, len(line) - 1)], None, "not_json"


LINES: list[Callable[[random.Random], Line]] = [
    _good,
    _good,
    _good,
    _cut,
    lambda draw: (draw.choice([b"", b"  ", b"\t"]), None, "blank"),
    lambda draw: (b'{"text": null}', None, None),
    lambda draw: (draw.choice([b'{"text": 1}', b'{"text": ["a"]}', b'{"text": NaN}']), None, "no_text"),
    lambda draw: (draw.choice([b"[]", b"7", b'"text"', b"null"]), None, "not_json"),
    lambda draw: (draw.choice([b'{"content": "a"}', b"{}", b'{"Text": "a"}']), None, "no_column"),
    lambda draw: (draw.choice([b'{"text": "a", "text": "b"}', b'{"text": "a", "b": 1, "b": 1}']), None, "repeated_key"),
    lambda draw: (b'{"text": "one"}{"text": "two"}', None, "not_json"),
    lambda draw: (b'{"text": "caf\xe9"}', None, "not_utf8"),
    lambda draw: (b'{"text": "half \\ud83d of it"}', None, "surrogate"),
    lambda draw: (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", None, "not_json"),
    lambda draw: (b"[" * 100_000, None, "not_json"),
    lambda draw: (json.dumps({"text": "wide text".encode("utf-16-le").decode()}).encode(), None, "not_utf8"),
]

Column = tuple[Any, list[str | None], list[str | None]]
"""A column, and for each of its values the text and the fault where it is read as text."""


def parquet(draw: random.Random) -> Odd:
    """Make a table whose columns have odd types and names, written in one of many ways."""
    count = draw.randint(0, 9)
    column, texts, faults = draw.choice(COLUMNS)(draw, count)
    names, arrays = ["text"], [column]
    refused = None
    for name in draw.sample(["other", "other", "a.b", "a", "text", "", "na\nme"], draw.randint(0, 3)):
        names.append(name)
        arrays.append(draw.choice(COLUMNS)(draw, count)[0])
    if names.count("text") > 1:
        refused = "there are 2 columns 'text'; rename all but one"
    wanted = draw.choice(["text", "text", "text", "gone", "a.b"])
    if wanted != "text":
        refused = f"there is no column '{wanted}'; available: "
        if wanted in names:
            return parquet(draw)
    table = pa.Table.from_arrays(arrays, names=names)
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        version=draw.choice(["1.0", "2.4", "2.6"]),
        compression=draw.choice(["none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
        row_group_size=draw.choice([1, 2, 1000]),
        data_page_version=draw.choice(["1.0", "2.0"]),
        use_dictionary=draw.random() < 0.5,
        write_statistics=draw.random() < 0.5,
        store_schema=draw.random() < 0.5,
        write_page_checksum=True,
    )
    rows = [(row, text, fault, None) for row, (text, fault) in enumerate(zip(texts, faults, strict=True), start=1)]
    return Odd("odd.parquet", sink.getvalue(), [] if refused else rows, refused, {"text": wanted})


def _strings(draw: random.Random, count: int) -> Column:
    texts = [None if draw.random() < 0.2 else words(draw) for _ in range(count)]
    column = pa.array(texts, draw.choice([pa.string(), pa.large_string(), pa.string_view()]))
    if draw.random() < 0.3 and column.type == pa.string():
        column = column.dictionary_encode()
    return column, texts, [None] * count


def _bytes(draw: random.Random, count: int) -> Column:
    """Make a column of text that is not all UTF-8."""
    values = [draw.choice([b"good", b"b\xe4d"]) for _ in range(count)]
    texts = [None if b"\xe4" in value else value.decode() for value in values]
    return pa.array(values, pa.binary()).view(pa.string()), texts, [None if text else "not_utf8" for text in texts]


def _typed(values: list[Any], kind: Any = None, fault: str = "no_text") -> Callable[[random.Random, int], Column]:
    def make(draw: random.Random, count: int) -> Column:
        drawn = [None if draw.random() < 0.2 else draw.choice(values) for _ in range(count)]
        return pa.array(drawn, kind), [None] * count, [None if value is None else fault for value in drawn]

    return make


COLUMNS: list[Callable[[random.Random, int], Column]] = [
    _strings,
    _strings,
    _strings,
    _bytes,
    _typed([1, 2**40], pa.int64()),
    _typed([1.5], pa.float64()),
    _typed([True], pa.bool_()),
    _typed([b"x"], pa.binary()),
    _typed([b"xyz"], pa.binary(3)),
    _typed([["a"], []], pa.list_(pa.string())),
    _typed([{"x": "a"}], pa.struct([("x", pa.string())])),
    _typed([[("k", "v")]], pa.map_(pa.string(), pa.string())),
    _typed([decimal.Decimal("1.50")], pa.decimal128(9, 2)),
    _typed([datetime.datetime(2020, 1, 1)], pa.timestamp("us")),
    _typed([datetime.date(2020, 1, 1)], pa.date32()),
    *[_typed([10**9], pa.date32(), "unreadable")] * 2,  # the year 2,739,877
    lambda draw, count: (pa.nulls(count), [None] * count, [None] * count),
]


def tree(draw: random.Random) -> tuple[dict[str, bytes], bytes]:
    """Make an archive; return its members and its bytes."""
    members = {}
    for index in range(draw.randint(1, 6)):
        stem = draw.choice(["a", "a b", "ä", "n" * 150, "deep/" * 30 + "x", "{x}", "na\nme"])
        members[f"{index}/{stem}.bin"] = draw.choice([b"", b"short", draw.randbytes(draw.randint(1, 20_000))])
    return members, draw.choice([_zip, _tar, _deb])(draw, members)


class _Unseekable(io.RawIOBase):
    """A pipe, into which zipfile writes sizes behind the members."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


def _zip(draw: random.Random, members: dict[str, bytes]) -> bytes:
    sink = draw.choice([io.BytesIO, _Unseekable])()
    with zipfile.ZipFile(sink, "w") as archive:
        if draw.random() < 0.5:
            archive.writestr("folder/", b"")
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = draw.choice(
                [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
            )
            info.comment, info.extra = draw.choice([b"", b"comment"]), draw.choice([b"", b"\x99\x99\x02\x00xy"])
            with archive.open(info, "w", force_zip64=draw.random() < 0.5) as member:
                member.write(data)
        archive.comment = draw.choice([b"", b"c" * 100])
    return sink.data if isinstance(sink, _Unseekable) else sink.getvalue()


def _plain_tar(draw: random.Random, members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    style = draw.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(fileobj=sink, mode="w", format=style, pax_headers={"comment": "ä"}) as archive:
        if draw.random() < 0.5:
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(draw.choice(["", "./"]) + name)
            info.size, info.uname = len(data), "ü"
            info.mtime = draw.choice([0, 1, 1.5]) if style == tarfile.PAX_FORMAT else 0
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def _tar(draw: random.Random, members: dict[str, bytes]) -> bytes:
    data = _plain_tar(draw, members)
    return packed(draw, data, draw.choice(list(PACK)))


def _deb(draw: random.Random, members: dict[str, bytes]) -> bytes:
    suffix = draw.choice(list(PACK))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar{suffix}": b""}
    parts[f"data.tar{suffix}"] = packed(draw, _plain_tar(draw, members), suffix)
    made = b"!<arch>\n"
    for name, data in parts.items():
        made += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return made


def damaged(draw: random.Random, data: bytes) -> bytes:
    """Cut a file off, change some of its bytes, or take some out."""
    changed = bytearray(data)
    kind = draw.choice(["cut", "flip", "flip", "flips", "gap"])
    at = draw.randrange(len(changed))
    if kind == "cut":
        del changed[at:]
    elif kind == "gap":
        del changed[at : at + draw.randint(1, 20)]
    else:
        for _ in range(1 if kind == "flip" else draw.randint(2, 9)):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)
