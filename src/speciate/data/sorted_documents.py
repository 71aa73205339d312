"""Sort documents by a digest of their text, on disk: the order of a domain's documents in every stage after `clean`.

The order is a fixed pseudo-random one. It follows from the texts alone, so it is the same however the texts are spread
over files, rows and shards. The digests' range is cut into as many equal parts as a domain has shards. `clean` writes
each of its files sorted, with every part in row groups of its own, and `sort` gathers one part of all files. So the
shards of a sorted domain, one after the other, are the whole domain in order, whatever their number.

Memory holds about 50 bytes a document; the documents themselves wait in a temporary file (TMPDIR).
"""

import array
import hashlib
import pathlib
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.data.documents import Document, DocumentWriter

KEY = np.dtype([("text", ">u8"), ("rest", ">u8"), ("group", ">u8"), ("id", ">u8")])
"""The order of documents: by the digest of the text, and among equal texts by those of the group and of the id."""

HEADER = struct.Struct("<4Q")
"""The sizes of a document's fields in the temporary file, which holds them one after the other."""


@dataclass(frozen=True)
class Part:
    """One part of a sorted file."""

    row_groups: int
    """Number of row groups that hold it."""
    documents: int
    bytes: int
    """Bytes of its texts, in UTF-8."""


class DocumentSorter:
    """Take documents in any order, and give them back sorted."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._starts = array.array("Q")
        self._sizes = array.array("Q")
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the file lives as long as this object)
        self._end = 0

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, document: Document) -> None:
        """Put a document into the temporary file. Raises OSError naming the folder if the disk is full."""
        fields = [value.encode() for value in (document.id, document.domain, document.group, document.text)]
        id_, _, group, text = fields
        for value, size in ((text, 16), (group, 8), (id_, 8)):
            self._keys += hashlib.blake2b(value, digest_size=size).digest()
        record = HEADER.pack(*map(len, fields)) + b"".join(fields)
        remaining = memoryview(record)
        try:
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None
        self._starts.append(self._end)
        self._sizes.append(len(text))
        self._end += len(record)

    def _sorted(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Return the documents' keys, and their order."""
        keys_D = np.frombuffer(bytes(self._keys), KEY)
        return keys_D, np.lexsort([keys_D[name] for name in reversed(KEY.names or ())])

    def _read(self, order: npt.NDArray[np.int64]) -> Iterator[tuple[Document, int]]:
        """Yield documents in `order`, each with the bytes of its text."""
        with open(self._file.fileno(), "rb", closefd=False) as file:
            for index in order.tolist():
                file.seek(self._starts[index])
                sizes = HEADER.unpack(file.read(HEADER.size))
                yield Document(*(file.read(size).decode() for size in sizes)), self._sizes[index]

    def write(self, file: pathlib.Path, num_parts: int = 1, *, max_bytes: int | None = None) -> list[Part]:
        """Write the documents to `file` in order, and return the parts in which they lie.

        Args:
            file: the documents file.
            num_parts: number of parts of the digests' range.
            max_bytes: stop after the document that reaches this many bytes of text; None writes all.
        """
        keys_D, order = self._sorted()
        # 32 bits of the digest decide the part, so that the product stays within 64 bits
        part_D = ((keys_D["text"].astype(np.uint64) >> np.uint64(32)) * np.uint64(num_parts)) >> np.uint64(32)
        parts, written = [], 0
        with DocumentWriter(file) as writer:
            for part in range(num_parts):
                of_part = order[slice(*np.searchsorted(part_D[order], (part, part + 1)))]
                first, documents, size = writer.num_row_groups, 0, 0
                for document, text_bytes in self._read(of_part):
                    if max_bytes is not None and written >= max_bytes:
                        break
                    writer.write(document)
                    documents, size, written = documents + 1, size + text_bytes, written + text_bytes
                writer.end_row_group()
                parts.append(Part(writer.num_row_groups - first, documents, size))
        return parts
