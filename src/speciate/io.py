"""Write files and folders atomically, digest files, and tell what may pass from what stays.

What is written has the mode that the user's umask gives a new file or folder. (`tempfile` gives it to its user alone,
and so do libraries that write by it.)
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
import stat
from collections.abc import Iterator

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that only writing meets; a library may not say where."""
PERMANENT = (
    *DISK_FULL,
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTEMPTY),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
)
"""Errors of the file system that are the same however often one tries; any other may pass."""
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""How torch's allocators say that there is none; on the CPU they raise a bare RuntimeError."""


files_written: list[pathlib.Path] = []
"""The files that this process has written by `atomic_write`, for the record of what made them."""


class TemporaryError(ValueError):
    """An error that the same command need not meet again, such as a server that cannot be reached."""


def may_pass(error: BaseException) -> bool:
    """Return whether the same command may succeed later, or with more memory, though nothing else has changed."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return error.errno is not None and error.errno not in PERMANENT
    return isinstance(error, TemporaryError | OSError) or is_out_of_memory(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in NO_MEMORY)


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
    temp_path = _temp_name(target)
    temp_path.touch(exist_ok=False)
    mode = stat.S_IMODE(temp_path.stat().st_mode)
    try:
        yield temp_path
        with temp_path.open("rb") as written:
            os.fsync(written.fileno())
        temp_path.chmod(mode)  # a library may have put a file of its own in its place
        os.replace(temp_path, target)
        files_written.append(target)
    except OSError as error:
        if error.errno in DISK_FULL and error.filename is None:
            raise OSError(error.errno, os.strerror(error.errno), str(target.parent)) from None
        raise
    finally:
        temp_path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield an empty folder to write to in place of `target`; it becomes `target` only if the block ends well.

    Raises:
        OSError: `target` is there already and is not an empty folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temp_path = _temp_name(target)
    temp_path.mkdir()
    try:
        yield temp_path
        share_modes(temp_path)
        os.replace(temp_path, target)
    finally:
        shutil.rmtree(temp_path, ignore_errors=True)


def share_modes(folder: pathlib.Path) -> None:
    """Give all that is in a folder the folder's own mode, which the umask has set; files without its execute bits."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        path.chmod(mode if path.is_dir() else mode & 0o666)


def _temp_name(target: pathlib.Path) -> pathlib.Path:
    """Return a new hidden name next to `target`, with its suffix, from which some libraries tell the format."""
    return target.with_name(f".{target.name}.{os.urandom(6).hex()}{target.suffix}")
