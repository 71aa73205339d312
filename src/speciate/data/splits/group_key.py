"""The keyed hash by which a domain's groups of documents are ordered."""

import hashlib


def group_key(group: str, seed: int) -> bytes:
    """Return the key by which `group` is ordered, 16 bytes: uniform over seeds, and the same on every machine."""
    return hashlib.blake2b(group.encode(), digest_size=16, key=seed.to_bytes(8, "big")).digest()
