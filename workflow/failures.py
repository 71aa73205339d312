"""Say last, alone and once why jobs failed; and try no job again that would only fail again.

Snakemake tries every failed job again where the rule or the profile has retries, and surrounds a job's own message with
its exception, the shell command and the whole log. It sees the exit status of local jobs alone, and passes it on to
nobody, so everything here is read from the job's log, which all executors have. A stage ends a log with its error, and
with a line more if the error may pass (speciate.cli.MAY_PASS). A job that was killed, that a bug ended, or whose error
may pass is tried again as before. No file is written. Where Snakemake is not as expected here, it does as it always
did.
"""

import atexit
import contextlib
import logging
import pathlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from speciate.cli import MAY_PASS


@dataclass
class Attempt:
    """One attempt at a job. Snakemake removes the log of an earlier one only when the job really starts."""

    rule: str
    label: str
    log: pathlib.Path | None
    earlier: tuple[int, int] | None = None
    """Time and size of the log that an earlier attempt had left."""

    def lines(self) -> list[str]:
        """Return what this attempt has logged."""
        state = state_of(self.log)
        if self.log is None or state is None or state == self.earlier:
            return []
        return [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]

    def messages(self) -> list[str]:
        """Return the error lines of the stage itself; several processes of one run may give the same."""
        return list(dict.fromkeys(line for line in self.lines() if self._says(line, "error: ")))

    def is_final(self) -> bool:
        """Tell whether another attempt would end with the same error."""
        return bool(self.messages()) and not any(self._says(line, MAY_PASS) for line in self.lines())

    def _says(self, line: str, text: str) -> bool:
        """Tell whether the stage of this rule says `text`; a Snakefile that imports the rule may call it otherwise."""
        said = re.match(rf"speciate (\w+): {re.escape(text)}", line)
        return said is not None and said[1] in self.rule

    def report(self) -> list[str]:
        """Return what to print of a failed job: its name and log, and its messages or else its log's last line."""
        where = f"{self.label} (log: {self.log})" if self.log else self.label
        rest = self.messages() or ["it ended without a message of its own; its log ends with:", *self.lines()[-1:]]
        return [where, *(rest if self.lines() else ["it ended without a message, and its log is empty"])]


class Failures(logging.Handler):
    """Follows jobs through Snakemake's log records, and keeps those that have failed and were not tried again."""

    def __init__(self, is_local: bool) -> None:
        super().__init__()
        self.is_local = is_local
        self.attempts: dict[int, Attempt] = {}
        self.failed: dict[int, Attempt] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Note that a job has begun, ended or failed."""
        with contextlib.suppress(Exception):  # what is not understood must not stop the study
            event, fields = event_of(record), record.__dict__
            if event == "job_info":
                self.attempts[fields["jobid"]] = attempt_of(fields)
                self.failed.pop(fields["jobid"], None)
            elif event == "job_finished":
                self.failed.pop(fields["job_id"], None)
            elif event == "job_error" and fields["jobid"] in self.attempts:
                self.failed[fields["jobid"]] = self.attempts[fields["jobid"]]

    def is_noise(self, record: logging.LogRecord) -> bool:
        """Tell whether a record only repeats a failure that the job itself has explained on this terminal."""
        if not self.is_local:
            return False
        event, fields = event_of(record), record.__dict__
        if event == "job_error":
            attempt = self.attempts.get(fields["jobid"])
            return attempt is not None and bool(attempt.messages())
        if event == "error" and fields.get("exception") == "RuleException":
            return any(
                f"tee -a {attempt.log} >&2" in record.getMessage() and attempt.messages()
                for attempt in self.attempts.values()
            )
        return False

    def lines(self) -> list[str]:
        """Return the last words of a study: each failed job and why it failed."""
        if not self.failed:
            return []
        count = len(self.failed)
        reports = (["", *attempt.report()] for attempt in self.failed.values())
        return ["", f"{count} job{'s' if count > 1 else ''} failed:", *(line for report in reports for line in report)]

    def say(self) -> None:
        """Print them."""
        with contextlib.suppress(Exception):
            for line in self.lines():
                print(line, file=sys.stderr, flush=True)


def event_of(record: logging.LogRecord) -> str:
    """Return the name of the record's event; empty for a plain line."""
    return str(record.__dict__.get("event", "")).lower().rpartition(".")[2]


def attempt_of(fields: dict[str, Any]) -> Attempt:
    """Return the attempt that a record of the event `job_info` announces."""
    names = [str(value) for key, value in dict(fields.get("wildcards") or {}).items() if key != "key"]
    logs = list(fields.get("log") or [])
    log = pathlib.Path(str(logs[0]).split(" (")[0]) if logs else None
    return Attempt(fields["rule_name"], " ".join([fields["rule_name"], *names]), log, state_of(log))


def state_of(file: pathlib.Path | None) -> tuple[int, int] | None:
    """Return a file's time and size; None if there is none."""
    if file is None or not file.exists():
        return None
    return file.stat().st_mtime_ns, file.stat().st_size


def jobs_of(job: Any) -> list[Any]:
    """Return the jobs of a group of jobs, or the job itself."""
    return list(job.jobs) if hasattr(job, "jobs") else [job]


@contextlib.contextmanager
def no_retries(job: Any) -> Iterator[None]:
    """Let the rules of a job, or of a group of jobs, have no retries while the block runs."""
    rules = {id(each.rule): each.rule for each in jobs_of(job)}.values()
    before = [rule.restart_times for rule in rules]
    try:
        for rule in rules:
            rule.restart_times = 0
        yield
    finally:
        for rule, retries in zip(rules, before, strict=True):
            rule.restart_times = retries


def refuse_retries(scheduler: Any, failures: Failures) -> None:
    """Let the scheduler give up a job at once if its last attempt is final."""
    handle = scheduler._handle_error

    def handle_error(job: Any, *rest: Any, **named: Any) -> None:
        numbers = [each.jobid for each in jobs_of(job)]
        final = any(failures.attempts[number].is_final() for number in numbers if number in failures.attempts)
        with no_retries(job) if final else contextlib.nullcontext():
            handle(job, *rest, **named)

    scheduler._handle_error = handle_error


def watch(workflow: Any, logger: logging.Logger) -> None:
    """Follow the jobs of a workflow that is about to run."""
    try:
        failures = Failures(is_local=bool(workflow.local_exec))
        refuse_retries(workflow.scheduler, failures)
        for handler in logger.handlers:
            # the complete log in .snakemake/log keeps everything
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not failures.is_noise(record))
        logger.addHandler(failures)
        atexit.register(failures.say)
    except Exception as error:
        print(f"failed jobs are shown as Snakemake shows them: {error}", file=sys.stderr)
