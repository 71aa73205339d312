"""Define bad records and documents: unreadable ones are refused and named, others are dropped and counted."""

import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.bad_input.case import Case, Place, package, separately, wheel
from tests.bad_input.small import Command, Ended, call, within

from speciate.cli import FAILED
from speciate.data.documents import read_documents

GOOD = b'{"text": "alpha beta gamma"}\n'
LARGE = 100_000_000
MOST_MIB = 900
"""Limit on the memory that a document of 100 MB may take."""
PEAK = "next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))"
"""Peak memory of a process in KiB; the kernel starts its count for children at their parent's peak."""


def lines(data: bytes, *filters: Any, **reader: Any) -> Callable[[Place], Command]:
    """Return the command `clean` for a jsonl member."""
    source = package({"kind": "jsonl", **reader})
    return lambda place: place.clean({"one": wheel({"a.jsonl": data})}, source, filters)


def of_files(data: bytes, name: str = "a.jsonl", spoil: Callable[[bytes], bytes] = bytes, **options: Any) -> Any:
    """Return the command `clean` for a user's file; `spoil` changes it after it was fetched."""

    def make(place: Place) -> Command:
        (place.folder / name).write_bytes(data)
        source = {"kind": "files", "paths": [name], **options}
        with within(place.folder):
            done = call(Command("fetch", ("--spec", place.spec(name="one", source=source), "--output", "one")))
        assert done.status == 0, done.said
        (place.folder / name).write_bytes(spoil(data))
        return place.clean({"one": (place.folder / "one").read_bytes()}, source)

    return make


def own_file(name: str) -> Callable[[Place], Command]:
    """Return the command `fetch` for a user's file of this name."""

    def make(place: Place) -> Command:
        (place.folder / name).write_bytes(GOOD)
        source = {"kind": "files", "paths": ["*.jsonl"]}
        return Command("fetch", ("--spec", place.spec(name="one", source=source), "--output", "one"))

    return make


def parquet(columns: dict[str, Any] | pa.Table) -> bytes:
    """Make a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), sink)
    return bytes(sink.getvalue())


def texts(*found: str | bytes) -> Callable[[Place], Command]:
    """Return the command `clean` for members with these texts."""
    members = {f"{index}.py": text for index, text in enumerate(found)}
    return lambda place: place.clean({"one": wheel(members)}, package())


def large(place: Place) -> Command:
    """Return the command `clean` for a document of 100 MB and a short one."""
    line = b'{"text": "' + b"word " * (LARGE // 5) + b'"}\n'
    return of_files(line + GOOD)(place)


def measured(place: Place, command: Command) -> Ended:
    """Run the case in a separate process, and fail if it took too much memory."""
    done = separately(place, command, f"import atexit; atexit.register(lambda: print({PEAK}, file=sys.stderr))")
    peak_kib = int(done.said.splitlines()[-1])
    assert 100 < peak_kib / 1024 < MOST_MIB, done.said
    return done


def without_controls(place: Place) -> None:
    """Check that the text lacks its control characters, which the audit counts."""
    (document,) = read_documents(place.folder / "out" / "documents.parquet")
    assert document.text == "ab = 1"
    audit = json.loads((place.folder / "out" / "counts.json").read_text())["audit"]
    assert audit["raw"]["unseen_documents"] and not audit["clean"]["unseen_documents"]


def dropping(place: Place) -> Command:
    """Return the command `clean` with a filter that keeps nothing."""
    return lines(GOOD * 3, {"kind": "length", "min_characters": 1000})(place)


def record(
    wrong: str, data: bytes, says: str, filters: Sequence[Any] = (), status: int = FAILED, **reader: Any
) -> Case:
    """Make a case of one jsonl member."""
    return Case("Documents", wrong, lines(data, *filters, **reader), says, status)


FAR = bytes.fromhex("28b52ffd") + bytes([0x00, (32 - 10) << 3]) + b"\x01\x00\x00"
"""A zstd frame without content (RFC 8878, section 3.1.1) that asks for a window of 4 GiB."""
HALF = json.dumps({"text": "half \ud83d a pair"}).encode() + b"\n"
CASES = [
    record(
        "a line that is no JSON",
        GOOD + b'{"text": "a\n',
        "source one: member a.jsonl: line 2: is not JSON: WHY at character 9",
    ),
    record(
        "a line that is no record",
        GOOD + b"[1, 2]\n",
        "source one: member a.jsonl: line 2: is not a JSON object but list",
    ),
    record(
        "brackets nested by thousands",
        GOOD + b"[" * 100_000 + b"\n",
        "source one: member a.jsonl: line 2: is not JSON that can be read: WHY",
    ),
    record(
        "a column that is not there",
        b'{"body": "a"}\n',
        "source one: member a.jsonl: line 1: there is no column 'text'; available: body",
    ),
    record(
        "a number for a text", b'{"text": 7}\n', "source one: member a.jsonl: line 1: column 'text' holds int, not text"
    ),
    record(
        "half a surrogate pair",
        HALF,
        "source one: member a.jsonl: line 1: column 'text' holds half a surrogate pair at character 5, which UTF-8 "
        "cannot write",
    ),
    record(
        "bad records, which the study says to drop",
        GOOD + HALF + b'[]\n{"body": "a"}\n{"text": "a", "text": "b"}\n',
        "domain code: 1 documents in N s; dropped {'no_column': 1, 'not_json': 1, 'repeated_key': 1, 'surrogate': 1}",
        status=0,
        bad_records="drop",
    ),
    record(
        "records whose text is null",
        GOOD + b'{"text": null}\n' * 2,
        "domain code: 1 documents in N s; dropped {'null': 2}",
        status=0,
    ),
    record(
        "a column that one record lacks",
        GOOD + b'{"body": "a"}\n',
        "source one: member a.jsonl: line 2: there is no column 'text'; available: body",
    ),
    record(
        "a column that no record has, where bad records are dropped",
        b'{"body": "a"}\n' * 2,
        "source one: member a.jsonl: there is no column 'text'; available: body",
        bad_records="drop",
    ),
    record(
        "a key twice",
        b'{"text": "a", "text": "b"}\n',
        "source one: member a.jsonl: line 1: has the key 'text' more than once",
    ),
    record(
        "not UTF-8",
        b'{"text": "caf\xe9"}\n',
        "source one: member a.jsonl: line 1: is not UTF-8: byte 0xe9 at offset 13",
    ),
    record(
        "UTF-16",
        '{"text": "a"}\n'.encode("utf-16-le"),
        "source one: member a.jsonl looks like UTF-16LE, not UTF-8: convert it, for example with `iconv -f UTF-16LE -t "
        "UTF-8`",
    ),
    Case(
        "Documents",
        "UTF-16 text whose bytes are UTF-8 too",
        of_files("привет мир".encode("utf-16-le"), "a.txt"),
        "source one: file a.txt: looks like UTF-16LE, not UTF-8: convert it, for example with `iconv -f UTF-16LE -t "
        "UTF-8`",
    ),
    Case(
        "Documents",
        "two records with one id",
        of_files(b'{"text": "a", "key": 7}\n{"text": "b", "key": "7"}\n', id="key"),
        "source one: two records have the id '7': file a.jsonl: row 1, and file a.jsonl: row 2",
    ),
    Case(
        "Documents",
        "a file with a line break in its name",
        own_file("a\nb.jsonl"),
        "source one: paths: 'a\\nb.jsonl' has the control character or line break U+000A in its name; rename it",
    ),
    Case(
        "Documents",
        "a file whose name is not UTF-8",
        own_file("caf\udce9.jsonl"),
        "source one: paths: 'caf\\udce9.jsonl' is a name that is not UTF-8, so it cannot be written down as text; "
        "rename it",
    ),
    Case(
        "Documents",
        "a file cut off since it was fetched",
        of_files(GOOD, spoil=lambda data: data[:-9]),
        "source one: file a.jsonl has 20 bytes, not the 29 it had when it was fetched",
    ),
    Case(
        "Documents",
        "a file changed since it was fetched",
        of_files(GOOD, spoil=bytes.upper),
        "source one: file a.jsonl has changed since it was fetched: expected sha256 SHA256, got SHA256",
    ),
    Case(
        "Documents",
        "parquet cut off",
        of_files(parquet({"text": ["a"]})[:-20], "a.parquet"),
        "source one: file a.parquet is damaged or cut off: WHY",
    ),
    Case(
        "Documents",
        "parquet without the column",
        of_files(parquet({"body": ["a"]}), "a.parquet"),
        "source one: file a.parquet: there is no column 'text'; available: body",
    ),
    Case(
        "Documents",
        "parquet with one column twice",
        of_files(parquet(pa.table([["a"], ["b"]], names=["text", "text"])), "a.parquet"),
        "source one: file a.parquet: there are 2 columns 'text'; rename all but one",
    ),
    Case(
        "Documents",
        "parquet with a value that Python cannot hold",
        of_files(parquet({"text": pa.array([10**9], pa.date32())}), "a.parquet"),
        "source one: file a.parquet: row 1: column 'text' cannot be read: WHY",
    ),
    Case(
        "Documents",
        "zstd with a window beyond the limit",
        of_files(FAR, "a.jsonl.zst"),
        "source one: file a.jsonl.zst has a zstd frame with a window of N bytes; the limit is N: compress it again "
        "with `zstd --long=31` or less",
    ),
    Case(
        "Documents",
        "a gzip file cut off",
        of_files(gzip.compress(GOOD * 9, mtime=0)[:-9], "a.jsonl.gz"),
        "source one: file a.jsonl.gz is damaged or cut off: WHY",
    ),
    Case(
        "Documents",
        "a document of 100 MB: dropped, in bounded memory",
        large,
        "domain code: 1 documents in N s; dropped {'too_large': 1}",
        status=0,
        run=measured,
    ),
    Case(
        "Documents",
        "control characters: taken out, and counted in the audit",
        texts("a\x00b\x1b = 1"),
        "domain code: 1 documents in N s; dropped {}",
        status=0,
        then=without_controls,
    ),
    Case(
        "Documents",
        "no text at all",
        texts(" ", "\n"),
        "domain code: no documents are left (texts read: 2; dropped: {'empty': 2})",
    ),
    Case(
        "Documents",
        "a filter that drops everything",
        dropping,
        "domain code: no documents are left (texts read: 3; dropped: {'too_short': 3})",
    ),
]
