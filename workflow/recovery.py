"""Continue after Snakemake itself was killed: its lock is recognised, and where nothing can be written is said.

Snakemake locks the files of a workflow by writing down their names, and says of a lock that is left only that it can be
removed by hand. Here each Snakemake also writes down which process it is (`.snakemake/speciate/started/`). A lock of a
process that is gone is removed; one of a living process, or of another machine, is respected, and its holder named.
What the jobs of a killed Snakemake still do is the matter of orphans.py.
"""

import contextlib
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.persistence import PersistenceBase
from snakemake.persistence.file import FilePersistence

from speciate import machine
from speciate.cli import error_message

SNAKEMAKE = pathlib.Path(".snakemake")
STARTED = SNAKEMAKE / "speciate" / "started"
RESULTS = pathlib.Path("results")
UNLOCK = "if it has ended: `snakemake --unlock`, then start again"


@dataclass
class Holder:
    """A Snakemake that has locked files in this folder, as it has written itself down."""

    file: pathlib.Path
    process: dict[str, Any]
    locks: list[str] = field(default_factory=list)
    """Names of its lock files; empty while it takes them."""

    def write(self) -> None:
        """Write it down."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        temp_path = self.file.with_name(f".{self.file.name}")
        temp_path.write_text(json.dumps({"process": self.process, "locks": self.locks}), encoding="utf-8")
        os.replace(temp_path, self.file)

    def in_words(self) -> str:
        """Return who it is, for a message."""
        return f"Snakemake, {machine.process_in_words(self.process)}, study {self.process.get('study')}"


def holders() -> list[Holder]:
    """Return all that have written themselves down; the name of a file tells nothing."""
    found = []
    for file in sorted(STARTED.glob("[!.]*")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(file.read_text(encoding="utf-8"))
            found.append(Holder(file, dict(content["process"]), list(content["locks"])))
    return found


def recognise_locks(study: str, logger: logging.Logger) -> None:
    """Let a lock count only while its holder lives, as far as can be told from here."""
    lock, lock_warn_only = PersistenceBase.lock, PersistenceBase.lock_warn_only

    @contextlib.contextmanager
    def lock_of_the_living(self: Any) -> Iterator[None]:
        if not isinstance(self, FilePersistence):
            with lock(self):
                yield
            return
        with plainly(SNAKEMAKE):
            folder = pathlib.Path(self._lockdir)
            for holder in dead(holders()):
                remove(holder, folder, logger)
            if self.locked:
                raise WorkflowError(refusal(folder))
            own = Holder(STARTED / f"{os.getpid()}-{os.urandom(4).hex()}", {**machine.this_process(), "study": study})
            own.write()
        with contextlib.ExitStack() as stack:
            stack.callback(own.file.unlink, missing_ok=True)
            with plainly(SNAKEMAKE):
                stack.enter_context(lock(self))
                own.locks = [pathlib.Path(file).name for file in self._lockfile.values()]
                own.write()
            yield

    @contextlib.contextmanager
    def warn_of_the_living(self: Any) -> Iterator[None]:
        """Warn in a dry run, which removes nothing, unless all locks are left by the dead."""
        folder = pathlib.Path(self.path) / "locks"
        if isinstance(self, FilePersistence) and not foreign(folder, dead(holders())):
            yield
        else:
            with lock_warn_only(self):
                yield

    PersistenceBase.lock, PersistenceBase.lock_warn_only = lock_of_the_living, warn_of_the_living


def dead(found: list[Holder]) -> list[Holder]:
    """Return the holders that certainly do not live any more."""
    return [holder for holder in found if machine.is_alive(holder.process) is False]


def foreign(folder: pathlib.Path, gone: list[Holder]) -> list[str]:
    """Return the names of the lock files in `folder` that are not those of holders that are gone."""
    others = [holder for holder in holders() if holder.file not in {each.file for each in gone}]
    listed = {name for holder in others for name in holder.locks}
    known = {name for holder in gone for name in holder.locks}
    # one that was killed while it took its locks had no time to write down which
    taking = any(not holder.locks for holder in gone) and all(holder.locks for holder in others)
    names = [file.name for file in folder.glob("*.lock")] if folder.is_dir() else []
    return [name for name in names if name in listed or not (name in known or taking)]


def remove(holder: Holder, folder: pathlib.Path, logger: logging.Logger) -> None:
    """Remove the lock files of a holder that is gone. Of several that want to do so, one does."""
    kept = foreign(folder, [holder])
    claimed = holder.file.with_name(f"{holder.file.name}.{os.getpid()}")
    try:
        holder.file.rename(claimed)
    except FileNotFoundError:
        return
    left = [file for file in folder.glob("*.lock") if file.name not in kept] if folder.is_dir() else []
    for file in left:
        file.unlink(missing_ok=True)
    claimed.unlink(missing_ok=True)
    if left:
        logger.info(f"{holder.in_words()}, was killed here; its lock is removed, and its work goes on")


def refusal(folder: pathlib.Path) -> str:
    """Return why this Snakemake may not work here."""
    names = {file.name for file in folder.glob("*.lock")}
    found = [holder for holder in holders() if set(holder.locks) & names]
    where = f"{pathlib.Path.cwd()}: is in use by"
    for holder in found:
        if machine.is_alive(holder.process):
            return f"{where} {holder.in_words()}; wait for it or end it, then start again"
    for holder in found:
        return f"{where} {holder.in_words()}, and from here it cannot be told whether that still lives; {UNLOCK}"
    return f"{where} a Snakemake that has not said which process it is; {UNLOCK}"


@contextlib.contextmanager
def plainly(folder: pathlib.Path = RESULTS) -> Iterator[None]:
    """Let an error of the file system, such as a full disk, be one line, which names a folder if not a file."""
    try:
        yield
    except OSError as error:
        place = folder if error.filename is None else os.fsdecode(error.filename)
        named = OSError(error.errno, error.strerror, os.path.abspath(place))
        raise WorkflowError(f"no job was run: {error_message(named)}") from None


def check_places(*, write: bool) -> None:
    """Raise WorkflowError where Snakemake's own folder or the results cannot be written to, before it meets that.

    Args:
        write: whether jobs are about to run; planning needs less.
    """
    logging.raiseExceptions = False  # a full disk is told once, not by Snakemake's log file at each of its lines
    if RESULTS.exists() and not RESULTS.is_dir():
        raise WorkflowError(
            f"{RESULTS.absolute()}: is not a folder; move it away, results go into a folder of that name"
        )
    with plainly(SNAKEMAKE):
        (SNAKEMAKE / "locks").mkdir(parents=True, exist_ok=True)
        for folder in (SNAKEMAKE, RESULTS) if write else ():
            folder.mkdir(exist_ok=True)
            probe = folder / f".probe-{os.getpid()}"
            try:
                probe.touch()
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder)) from None
            probe.unlink()


def rerun_half_made() -> None:
    """Let what a killed Snakemake has left half-made be made again, whatever the profile says."""
    check = DAG.check_incomplete

    async def check_and_make_again(self: Any) -> None:
        self.workflow.dag_settings.force_incomplete = True
        await check(self)

    DAG.check_incomplete = check_and_make_again
