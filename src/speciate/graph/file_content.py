"""Digest the user's own files, so that a changed file makes stale what was read from it, and a touched one does not.

Snakemake compares dates, and `cp -p`, `tar x` and `rsync -t` give a changed file an old one. So the rules take a digest
of the content as a parameter, and the files themselves are no inputs. That a path may hold braces, which Snakemake
would take for a wildcard, is a second reason.

A file is read again only where its size, its times or its inode differ from those noted at the last reading. The time
of the last change of the inode (ctime) moves with every change of the content, and no ordinary program sets it back.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterable

from speciate.io import atomic_write

SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read is read again the next time: its times may be too coarse to
show a further change."""


class FileContents:
    """Digests of files, noted in a file so that the next process need not read them again."""

    def __init__(self, notes: pathlib.Path | None = None) -> None:
        """Read earlier notes; a missing or damaged file of notes is none.

        Args:
            notes: where to keep notes; None keeps none.
        """
        self._notes = notes
        self._known: dict[str, list[object]] = {}
        try:
            known = json.loads(notes.read_text(encoding="utf-8")) if notes else {}
        except (OSError, ValueError):
            known = {}
        if isinstance(known, dict):
            self._known = {path: note for path, note in known.items() if isinstance(note, list) and len(note) == 2}

    def digest(self, files: Iterable[str]) -> str:
        """Return a digest of the paths, sizes and contents of `files`. Raises OSError if one cannot be read."""
        hasher, num_read = hashlib.sha256(), 0
        for path in files:
            status = os.stat(path)
            state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
            key = os.path.abspath(path)
            noted_state, content = self._known.get(key, [None, None])
            if noted_state != state or not isinstance(content, str):
                started = time.time_ns()
                with open(path, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                self._known.pop(key, None)
                if started - status.st_ctime_ns > SETTLED_NS:
                    self._known[key] = [state, content]
                num_read += 1
            for part in (path.encode("utf-8", "surrogateescape"), str(status.st_size).encode(), content.encode()):
                hasher.update(len(part).to_bytes(8, "big") + part)
        if num_read:
            self._save()
        return hasher.hexdigest()

    def _save(self) -> None:
        """Write the notes of the files that are still there. Does nothing where they cannot be written."""
        if self._notes is None:
            return
        self._known = {path: note for path, note in self._known.items() if os.path.exists(path)}
        try:
            with atomic_write(self._notes) as temp_path:
                temp_path.write_text(json.dumps(self._known), encoding="utf-8")
        except OSError:
            pass  # a folder that cannot be written to costs time, not truth
