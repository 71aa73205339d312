"""Drops a document whose normalised text came before in the domain; the first stays.

Only a digest of each text is kept (16 bytes of BLAKE2b), so memory is some 100 bytes a document.
"""

import hashlib

from speciate.data.documents import Document
from speciate.kinds import Kind


class Options(Kind):
    """Keeps the first of equal texts."""


class Filter:
    """One pass over one domain."""

    def __init__(self, options: Options) -> None:
        self._seen: set[bytes] = set()

    def reason(self, document: Document) -> str | None:
        """Why `document` is dropped, or None to keep it."""
        digest = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
        if digest in self._seen:
            return "exact_duplicate"
        self._seen.add(digest)
        return None
