"""What every verb does alike: one stage, one command line, one clear message when it fails.

A verb module defines `main()`, parses with argparse, reads, calls a noun, writes; `run(main)` is its last line.
"""

import errno
import os
import pathlib
import resource
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence

from speciate.io import DISK_FULL


def run(main: Callable[[], None]) -> None:
    """Runs a verb; what a user can mend ends as one message on standard error and exit status 1, with no traceback.

    A verb that ends well says what it took: processor time and its largest memory, children included.
    """
    try:
        main()
        log(_resources_used())
    except (ValueError, OSError, MemoryError, zipfile.BadZipFile) as error:
        if os.environ.get("SPECIATE_TRACEBACK"):
            raise
        for line in error_message(error).splitlines() or [type(error).__name__]:
            log(f"error: {line}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _resources_used() -> str:
    """What this process and its children have used so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in used)
    # Linux counts KiB; the largest of the two, since they need not have lived at once
    return f"took {seconds:.1f} CPU s and at most {max(each.ru_maxrss for each in used) / 1024:.0f} MiB"


def error_message(error: BaseException) -> str:
    """An error's message; of the system's most common ones in words that say what to look at."""
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    if error.errno in DISK_FULL:
        return f"the disk is full: {error.filename} ({error.strerror})"
    if error.errno == errno.ENOENT:
        return f"{error.filename}: there is no such file"
    if error.errno == errno.EACCES:
        return f"{error.filename}: may not be read or written"
    return str(error)


def log(text: str) -> None:
    """One line, at once, on standard error; dropped where nobody reads there any more, which ends no stage."""
    try:
        print(f"speciate {pathlib.Path(sys.argv[0]).stem}: {text}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        # what is left of the line would be written when Python ends, and fail again
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def parse_named_paths(pairs: Sequence[str], names: Iterable[str], complaint: str) -> dict[str, pathlib.Path]:
    """NAME=PATH arguments as paths, in the order of `names`. Raises ValueError unless each is given once."""
    given = {name: pathlib.Path(path) for name, equals, path in (pair.partition("=") for pair in pairs) if equals}
    wanted = list(names)
    if len(given) != len(pairs) or set(given) != set(wanted):
        raise ValueError(complaint)
    return {name: given[name] for name in wanted}
