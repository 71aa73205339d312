"""Let the records beside the results decide which jobs run again, and not dates or Snakemake's own records.

Each stage writes what made its files (speciate.graph.recording). A job with such a record runs again if what it would
use now differs, or if a file is no longer what its job wrote. Nothing else makes it run: no date, no folder
`.snakemake` that is gone, no change of how a rule's command is laid out, no other profile.

Snakemake asks its `Persistence` whether a job has changed, and dates whether an input is newer. Both questions are
answered here for the jobs of this study. A job without a record, from an earlier version, is judged by Snakemake's
records, and runs again if there are none.
"""

import argparse
import collections
import itertools
import logging
import os
import pathlib
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from snakemake.dag import DAG
from snakemake.jobs import Job
from snakemake.persistence import NO_PARAMS_CHANGE, ParamsChange, PersistenceBase
from snakemake.utils import format

from speciate.cli import verb_files, verb_parser
from speciate.graph.provenance import short_digest, spec_digest
from speciate.graph.recording import settings_of
from speciate.graph.records import Entry, Record, Records, entry_of
from speciate.graph.study_graph import StudyGraph
from speciate.io import sha256

VERB = re.compile(r"python\s+-m\s+speciate\s+(\w+)")
NAMED_AT_MOST = 3
"""So many jobs of a rule are named with their reason; the others are counted by Snakemake."""
DIFFERENT = {
    "spec": "another spec",
    "code": "other code",
    "environment": "packages of another lock",
    "content": "other files of yours",
}
"""Part of a record -> what is said where it differs."""
UNTOLD = {"train": ("pack",)}
"""Stage -> earlier stages whose files it gets through another input's, so that its command line does not name them."""


class Change(ParamsChange):  # type: ignore[misc]
    """Why a job runs again, in words."""

    def __init__(self, message: str) -> None:
        super().__init__(only_old={message})
        self.message = message

    def __str__(self) -> str:
        return self.message


class Verified:
    """Notes of files that were found to be what their jobs wrote, so that they are read only once.

    A line holds a record's key, and a digest of the record and of the size, times and inode of its files.
    """

    def __init__(self, file: pathlib.Path) -> None:
        self._file = file
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            lines = []
        self._known = dict(line.rpartition("\t")[::2] for line in lines)
        if len(lines) > 2 * len(self._known) + 100:
            self._write("w", "".join(f"{key}\t{state}\n" for key, state in self._known.items()))

    def holds(self, key: str, state: str) -> bool:
        """Return whether the files were in this state when they were read."""
        return self._known.get(key) == state

    def note(self, key: str, state: str) -> None:
        """Note the state of files that were just written or read."""
        if self._known.get(key) != state:
            self._known[key] = state
            self._write("a", f"{key}\t{state}\n")

    def _write(self, mode: str, text: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError:
            pass  # a folder that cannot be written to costs time, not truth


class Staleness:
    """What the records say of each job of a study."""

    def __init__(self, graph: StudyGraph, environment: str, notes: pathlib.Path, logger: logging.Logger) -> None:
        """Plan a study.

        Args:
            graph: the study.
            environment: the digest of the environment in which its jobs would run.
            notes: where to note which files were read and found unchanged.
            logger: where to name the jobs that run again.
        """
        self.graph, self.environment, self.logger = graph, environment, logger
        self.records = Records(graph.results)
        self.verified = Verified(notes)
        self._stages: dict[Any, str] = {}
        self._parsers: dict[str, argparse.ArgumentParser] = {}
        self._entries: dict[str, Entry] = {}
        self._verdicts: dict[str, str | None] = {}
        self._specs: dict[tuple[str, str], str] = {}
        self._intact: dict[Entry, str] = {}
        self._named: collections.Counter[str] = collections.Counter()
        self._unnamed: list[tuple[str, str, str]] = []

    def stage(self, job: Any) -> str:
        """Return the stage that a job of this study runs; empty for any other job."""
        if not job.output or not job.rule.shellcmd:
            return ""
        if job.rule not in self._stages:
            verb = VERB.search(job.rule.shellcmd)
            self._stages[job.rule] = verb[1] if verb else ""
        stage = self._stages[job.rule]
        first = str(job.output[0])
        if first.startswith(f"{self.graph.home}/"):
            return stage
        name = job.wildcards.get("name")
        is_data = stage in self.graph.stages and name in self.graph.names(stage)
        return stage if is_data and first.startswith(f"{self.graph.folder(stage, name)}/") else ""

    def entry(self, job: Any) -> Entry:
        """Return where a job's record is."""
        key = str(job.output[0])
        if key not in self._entries:
            self._entries[key] = entry_of(self.stage(job), job.output, self.graph.results)
        return self._entries[key]

    def verdict(self, job: Any, dependencies: Any, has_metadata: Callable[[], bool]) -> str | None:
        """Return why a job runs again, empty if it need not, and None where its records do not say.

        Args:
            job: a job of this study.
            dependencies: earlier job -> the files of it that the job reads.
            has_metadata: tells whether Snakemake remembers the job.
        """
        key = str(job.output[0])
        if key not in self._verdicts:
            record = self.records.get(self.entry(job))
            if record is not None:
                self._verdicts[key] = "; ".join(self.reasons(job, record, dependencies))
            elif any(os.path.exists(file) for file in job.output) and not has_metadata():
                self._verdicts[key] = "nothing says what made its files"
            else:
                self._verdicts[key] = None
            self._note(job, self._verdicts[key])
        return self._verdicts[key]

    def _note(self, job: Any, verdict: str | None) -> None:
        if verdict:
            which = ", ".join(f"{name} {value}" for name, value in job.wildcards.items() if name != "key")
            self._unnamed.append((job.rule.name, which, verdict))

    def tell(self) -> None:
        """Name the jobs that were found to run again, in the same order whichever was asked about first."""
        for rule, which, verdict in sorted(self._unnamed):
            self._named[rule] += 1
            if self._named[rule] <= NAMED_AT_MOST:
                self.logger.info(f"{rule}{f' ({which})' if which else ''} runs again: {verdict}")
            elif self._named[rule] == NAMED_AT_MOST + 1:
                self.logger.info(f"more jobs of {rule} run again")
        self._unnamed.clear()

    def reasons(self, job: Any, record: Record, dependencies: Any) -> Iterator[str]:
        """Yield each difference between what made a job's files and what would make them now."""
        stage, wanted = self.stage(job), self._wanted(job)
        for part, now in wanted.items():
            found = vars(record)[part]
            # a person who runs a stage by hand tells it neither its packages nor the content of files
            told = part in ("spec", "code") or bool(found)
            if found != now and told:
                yield f"made with {DIFFERENT[part]} ({found or 'none'}, not {now or 'none'})"
        settings = self._settings(job)
        if dict(record.settings) != settings:
            yield f"made with other options ({_in_words(record.settings)}, not {_in_words(settings)})"
        other = next((earlier for earlier in dependencies if self._was_other(stage, record, earlier)), None)
        if other is not None:
            yield f"made from other files of {self.stage(other)} than those in {self.entry(other).home}"
        own = self.entry(job)
        never = [file for file in map(str, job.output) if file.removeprefix(f"{own.home}/") not in record.outputs]
        if never:
            yield f"{never[0]} was not among its files"
        changed = self.changed_file(own, record)
        if changed:
            yield f"{changed} is no longer what {stage} wrote"

    def _was_other(self, stage: str, record: Record, earlier: Any) -> bool:
        """Return whether a job read other files than those that an earlier job has made, or is to make."""
        if not self.stage(earlier) or self.stage(earlier) in UNTOLD.get(stage, ()):
            return False
        entry = self.entry(earlier)
        read, made = record.inputs.get(entry.key(self.graph.results)), self.records.get(entry)
        if made is not None:
            return read != made.made
        # files that are there without a record are nothing to compare with; files that were removed are not missed
        return read is None and not any(os.path.exists(file) for file in earlier.output)

    def _wanted(self, job: Any) -> dict[str, str]:
        """Return the digests that a job's record would have now."""
        params = dict(job.params.items())
        wanted = {}
        stage = self.stage(job)
        if "specs" in params:
            wanted["spec"] = spec_digest(*self.graph.cost_runs)
        elif "spec" in params and stage in self.graph.stages:
            unit = (stage, job.wildcards.name)
            if unit not in self._specs:
                self._specs[unit] = spec_digest(self.graph.spec(*unit))
            wanted["spec"] = self._specs[unit]
        elif "spec" in params:
            wanted["spec"] = pathlib.Path(params["spec"]).stem  # its name is the digest of its content
        wanted |= {"code": str(params["code"]), "content": params.get("content", "")}
        environment = params.get("environment", self.environment)
        return wanted | ({"environment": environment} if environment else {})

    def _settings(self, job: Any) -> dict[str, str]:
        """Return the options of a job's command that are no paths."""
        stage = self.stage(job)
        if stage not in self._parsers:
            self._parsers[stage] = verb_parser(verb_files()[stage])
        parser = self._parsers[stage]
        others = [action.option_strings for action in parser._actions if action.type is not pathlib.Path]
        if not set(itertools.chain(*others)).intersection(job.rule.shellcmd.split()):
            return {}
        # Snakemake's own `job.shellcmd` also formats the job's number, which it does not have yet
        parts = {part: getattr(job, part) for part in ("input", "output", "params", "wildcards", "log")}
        words = shlex.split(format(job.rule.shellcmd, **{**job.rule.workflow.globals, **parts, "threads": 1}))
        words = words[words.index("speciate") + 2 :]
        return settings_of(parser, parser.parse_args(words[: words.index("2>&1")]))

    def changed_file(self, entry: Entry, record: Record) -> str:
        """Return a file that is no longer what its job wrote; empty if there is none. A missing one is the same."""
        if entry not in self._intact:
            self._intact[entry] = self._changed_file(entry, record)
        return self._intact[entry]

    def _changed_file(self, entry: Entry, record: Record) -> str:
        key, state = entry.key(self.graph.results), self.state(entry, record)
        if self.verified.holds(key, state):
            return ""
        for name, (size, digest) in record.outputs.items():
            file = entry.home / name
            if file.is_file() and (file.stat().st_size != size or sha256(file) != digest):
                return str(file)
        self.verified.note(key, state)
        return ""

    def state(self, entry: Entry, record: Record) -> str:
        """Return a digest of a record, and of the size, times and inodes of its files."""
        parts, home = [record.made], str(entry.home)
        for name in record.outputs:
            try:
                status = os.stat(f"{home}/{name}")
            except OSError:
                continue
            parts.append(f"{name} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}")
        return short_digest(*parts)

    def finished(self, job: Any) -> None:
        """Note that a job's files have just been written, so that they need not be read."""
        entry = self.entry(job)
        self.records.forget(entry)
        self._verdicts.pop(str(job.output[0]), None)
        self._intact.pop(entry, None)
        record = self.records.get(entry)
        if record is not None:
            self.verified.note(entry.key(self.graph.results), self.state(entry, record))


def _in_words(settings: Any) -> str:
    return " ".join(f"--{name} {value}" for name, value in settings.items()) or "none"


def decide(staleness: Staleness) -> None:
    """Let the records decide for the jobs of a study; what Snakemake asks of other jobs is answered as before."""
    asked = PersistenceBase
    has_metadata, outdated, params, finished = (
        asked.has_metadata,
        asked.has_outdated_metadata,
        asked.params_changed,
        asked.finished,
    )

    def verdict(self: Any, job: Any) -> str | None:
        if not staleness.stage(job):
            return None
        return staleness.verdict(job, self.dag.dependencies[job], lambda: has_metadata(self, job))

    def params_changed(self: Any, job: Any, file: Any = None) -> Any:
        found = verdict(self, job)
        if found is None:
            return params(self, job, file)
        return Change(found) if found else NO_PARAMS_CHANGE

    async def has_finished(self: Any, job: Any) -> None:
        await finished(self, job)
        if staleness.stage(job):
            staleness.finished(job)

    def unless_recorded(original: Any) -> Any:
        def changed(self: Any, job: Any, file: Any = None) -> Any:
            if verdict(self, job) is None:
                return original(self, job, file)
            return () if file is None else False

        return changed

    asked.has_metadata = lambda self, job: verdict(self, job) is not None or has_metadata(self, job)
    asked.has_outdated_metadata = lambda self, job: verdict(self, job) is None and outdated(self, job)
    asked.params_changed, asked.finished = params_changed, has_finished
    for name in ("input_changed", "code_changed", "software_stack_changed"):
        setattr(asked, name, unless_recorded(getattr(asked, name)))
    _ignore_dates(staleness)
    update = DAG.update_needrun

    async def update_and_tell(self: Any, *args: Any, **options: Any) -> None:
        await update(self, *args, **options)
        staleness.tell()

    DAG.update_needrun = update_and_tell


def _ignore_dates(staleness: Staleness) -> None:
    """Let no date make a job of the study run again, or fail."""
    oldest, check = Job.output_mintime, DAG.check_output_mtime

    async def no_older_than_any_input(self: Any) -> Any:
        return float("inf") if staleness.stage(self) else await oldest.fget(self)

    async def check_others(self: Any, job: Any, files: Any) -> None:
        if not staleness.stage(job):
            await check(self, job, files)

    Job.output_mintime = property(no_older_than_any_input)
    DAG.check_output_mtime = check_others
