"""What every verb does alike: one stage, one command line, one clear message when it fails.

A verb module defines `main()`, parses with argparse, reads, calls a noun, writes; `run(main)` is its last line.
"""

import contextlib
import os
import pathlib
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator


def run(main: Callable[[], None]) -> None:
    """Runs a verb; what a user can mend ends as one message on standard error and exit status 1, with no traceback."""
    try:
        main()
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        if os.environ.get("SPECIATE_TRACEBACK"):
            raise
        verb = pathlib.Path(sys.argv[0]).stem
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"speciate {verb}: error: {line}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def say(text: str) -> None:
    """One line of progress, at once, on standard error."""
    print(f"speciate {pathlib.Path(sys.argv[0]).stem}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def writing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to in place of `target`; it becomes `target` only when the block ends well.

    Written beside the target, synced and renamed, so that nothing half-written is ever left under the target's name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    aside = pathlib.Path(name)
    try:
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.chmod(0o644)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
