"""`ReadingError`: an input cannot be read; and the way in which a library's errors about it become one line."""

import contextlib
import errno
from collections.abc import Iterator


class ReadingError(ValueError):
    """A file or a record cannot be read; the message names it in one line."""


@contextlib.contextmanager
def explain_errors(where: str, damage: str = "is damaged or cut off") -> Iterator[None]:
    """Raise a library's errors about an input as a ReadingError that starts with `where`.

    A library's limit is not damage, so it is called what it is. Errors of the file system, such as a full disk, stay
    OSErrors; the error that was caught is kept as the cause.
    """
    try:
        yield
    except ReadingError:
        raise
    except Exception as error:
        # zipfile seeks before the start of a damaged file, which the system calls an invalid argument
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ReadingError(f"{where} {_problem(error, damage)}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.strip().removesuffix(":")


def _problem(error: Exception, damage: str) -> str:
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, NotImplementedError):
        return "uses what cannot be read here"
    return damage
