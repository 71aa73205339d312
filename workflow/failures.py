"""Say last, alone and once why jobs failed.

Snakemake surrounds a job's own message with its exception, the shell command and the whole log. It passes the exit
status of a job on to nobody, so what is known of a job is read from its log, which all executors have, and from what
the executor and the scheduler's log say of its end (causes.py). A stage ends its log with the resources that it took,
or with its error, and with a line more if the error may pass (speciate.cli.MAY_PASS). No file is written. Where
Snakemake is not as expected here, it does as it always did.
"""

import atexit
import contextlib
import logging
import pathlib
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import causes
from live_progress import STEP

from speciate.cli import MAY_PASS


@dataclass
class Attempt:
    """One attempt at a job. Snakemake removes the log of an earlier one only when the job really starts."""

    rule: str
    label: str
    log: pathlib.Path | None
    earlier: tuple[int, int] | None = None
    """Time and size of the log that an earlier attempt had left."""
    told: list[str] = field(default_factory=list)
    """What the executor and the scheduler's log say of its end."""
    share: str = ""
    """The submission that it shares with other jobs; empty if it has its own."""
    limit: str = ""
    """Why no other attempt may ask for more memory; empty if one may."""

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

    def is_done(self) -> bool:
        """Tell whether the stage ended well, although the submission that it shared did not."""
        return any(line.startswith(f"speciate {self.rule}: took ") for line in self.lines()) and not self.messages()

    def cause(self) -> causes.Cause:
        """Return what ended it, as far as anything tells."""
        return causes.cause_of([*self.told, *self.lines()])

    def step(self) -> int:
        """Return the last training step that it logged; 0 for other stages."""
        return max((int(step["step"]) for line in self.lines() for step in [STEP.search(line)] if step), default=0)

    def report(self) -> list[str]:
        """Return what to print of a failed job: its name and log, and its messages or else its log's last line."""
        where = f"{self.label} (log: {self.log})" if self.log else self.label
        if self.messages():
            return [where, *self.messages()]
        cause, lines = self.cause(), self.lines()
        why = [f"{cause.value}{self.limit and f'; {self.limit}'}"] if cause.value else []
        if not lines:
            told = [line for text in self.told for line in text.splitlines() if line.strip()][-1:]
            ends = ["it ended before its stage began; the scheduler's log of it ends with:", *told]
            return [where, *(why or (ends if told else ["it ended without a message, and its log is empty"]))]
        return [where, *(why or ["it ended without a message of its own; its log ends with:"]), lines[-1]]


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

    def note_end(self, job: Any, told: list[str]) -> None:
        """Note what the executor says of a job that failed, or of a share of jobs."""
        for each in jobs_of(job):
            attempt = self.attempts.get(each.jobid)
            if attempt is not None:
                attempt.told = told
                attempt.share = str(job.groupid) if hasattr(job, "groupid") else ""

    def lines(self) -> list[str]:
        """Return the last words of a study: each failed job and why it failed."""
        failed = list(self.failed.values())
        speaking = {attempt.share for attempt in failed if attempt.share and attempt.lines()}
        shown: list[Attempt] = []
        for attempt in failed:
            # what was not run says nothing; one that speaks has told why, or the first of the share
            if not attempt.share or attempt.lines() or attempt.share not in speaking:
                shown.append(attempt)
                speaking |= {attempt.share} - {""}
        if not shown:
            return []
        rest = len(failed) - len(shown)
        more = f", and {rest} that share a submission with one of them were not run" if rest else ""
        reports = (["", *attempt.report()] for attempt in shown)
        count = f"{len(shown)} job{'s' if len(shown) > 1 else ''} failed{more}:"
        return ["", count, *(line for report in reports for line in report)]

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


def watch(workflow: Any, logger: logging.Logger) -> Failures | None:
    """Follow the jobs of a workflow that is about to run; None if that is not possible."""
    try:
        failures = Failures(is_local=bool(workflow.local_exec))
        for handler in logger.handlers:
            # the complete log in .snakemake/log keeps everything
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.addFilter(lambda record: not failures.is_noise(record))
        logger.addHandler(failures)
        atexit.register(failures.say)
    except Exception as error:
        print(f"failed jobs are shown as Snakemake shows them: {error}", file=sys.stderr)
        return None
    return failures
