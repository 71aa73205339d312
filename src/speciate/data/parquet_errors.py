"""Turn Arrow's errors about damaged files into one line that names the file."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa


@contextlib.contextmanager
def explain_parquet_errors(message: str) -> Iterator[None]:
    """Raise Arrow's errors about a file's content as a ValueError that starts with `message`.

    Errors of the file system, such as a full disk, stay OSErrors.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{message}: {next(iter(str(error).splitlines()), type(error).__name__)}") from None
