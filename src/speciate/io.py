"""Write files atomically, and digest them."""

import contextlib
import errno
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that only writing meets; a library may not say where."""


def sha256(file: pathlib.Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_write(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a path to write to in place of `target`; it becomes `target` only if the block ends well.

    The file is written next to the target, synced and renamed, so no half-written file ever has the target's name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temp_path = pathlib.Path(name)
    try:
        yield temp_path
        with temp_path.open("rb") as written:
            os.fsync(written.fileno())
        temp_path.chmod(0o644)
        os.replace(temp_path, target)
    except OSError as error:
        if error.errno in DISK_FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(target.parent)) from None
        raise
    finally:
        temp_path.unlink(missing_ok=True)
