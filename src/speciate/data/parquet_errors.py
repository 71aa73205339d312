"""Turn the errors about damaged parquet files into one line that names the file."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from speciate.data.reading_errors import ReadingError, first_line


@contextlib.contextmanager
def explain_parquet_errors(message: str) -> Iterator[None]:
    """Raise the errors about a file's content as a ReadingError that starts with `message`.

    Errors of the file system, such as a full disk, stay OSErrors.
    """
    try:
        yield
    except ReadingError:
        raise
    # a damaged footer also leads to names that are not UTF-8, to columns that are missing, and to absurd numbers
    except (pa.ArrowException, OSError, UnicodeError, LookupError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ReadingError(f"{message}: {first_line(error)}") from error
