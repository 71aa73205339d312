"""Show a running study at the bottom of a terminal: one line for each running job, one for the whole study.

Jobs write to the terminal themselves, through `tee`, so nothing here could collect their output and draw around it, as
progress libraries do. Instead the terminal scrolls only the rows above these lines (DECSTBM). Snakemake's log records
tell when a job starts and ends, and the job's log file tells what it is doing. No file is written, and an error here
ends only the display.
"""

import atexit
import collections
import contextlib
import logging
import os
import pathlib
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

STEP = re.compile(
    r"step (?P<step>\d+)/(?P<steps>\d+), loss (?P<loss>\S+), (?P<speed>[\d,]+) tokens/s.*, "
    r"(?P<minutes>\d+):(?P<seconds>\d\d) left"
)
"""The progress line of `speciate train` (speciate.training.logs.progress)."""
MOST_ROWS = 8  # jobs that have a line; the others are counted
TAIL = 4096  # bytes of a log's end that are looked at
SECONDS = 1.0  # between two drawings


def minutes(seconds: float) -> str:
    """Return a duration as H:MM:SS or M:SS."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


@dataclass
class Job:
    """A running job. `log_size`: what its log file held when it started, from an earlier attempt."""

    rule: str
    label: str
    log: pathlib.Path | None
    started: float
    log_size: int = 0

    def last_line(self) -> str:
        """Return the last line that this attempt has logged, without the part that names its stage."""
        if self.log is None or not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            if end < self.log_size:  # the log was started again
                self.log_size = 0
            file.seek(max(self.log_size, end - TAIL))
            text = file.read().decode(errors="replace")
        lines = [line for line in re.split(r"[\r\n]+", text) if line.startswith(f"speciate {self.rule}: ")]
        return lines[-1].partition(": ")[2] if lines else ""

    def seconds_left(self) -> float | None:
        """Return the seconds left by a training's own estimate; None for other jobs."""
        step = STEP.search(self.last_line())
        return None if step is None else 60 * int(step["minutes"]) + int(step["seconds"])

    def line(self, now: float) -> str:
        """Return the job's line: its stage and names, its time, and its last log line or training step."""
        last_line, spent = self.last_line(), minutes(now - self.started)
        step = STEP.search(last_line)
        if step is None:
            return f"{self.label}  {spent}  {last_line}".rstrip()
        filled = 10 * int(step["step"]) // max(1, int(step["steps"]))
        bar = "#" * filled + "." * (10 - filled)
        count, speed = f"step {step['step']} of {step['steps']}", f"{step['speed']} tokens/s"
        left = f"{step['minutes']}:{step['seconds']} left"
        return f"{self.label}  [{bar}] {count}, loss {step['loss']}, {speed}, {left}"


class Study:
    """The running, waiting and finished jobs, from Snakemake's log records, and an estimate of the time left."""

    def __init__(self, name: str, jobs_of_rule: Mapping[str, int], now: float) -> None:
        self.name, self.started = name, now
        self.waiting = collections.Counter(jobs_of_rule)
        self.total, self.done, self.failed = sum(self.waiting.values()), 0, 0
        self.running: dict[int, Job] = {}
        self.durations: dict[str, list[float]] = collections.defaultdict(list)

    def note(self, record: logging.LogRecord, now: float) -> None:
        """Update the jobs from one of Snakemake's log records."""
        event = str(getattr(record, "event", "")).lower().rpartition(".")[2]
        fields = record.__dict__
        if event == "job_info":
            rule, logs = fields["rule_name"], list(fields.get("log") or [])
            names = [str(value) for key, value in dict(fields.get("wildcards") or {}).items() if key != "key"]
            log = pathlib.Path(logs[0].split(" (")[0]) if logs else None
            size = log.stat().st_size if log is not None and log.exists() else 0
            self.running[fields["jobid"]] = Job(rule, " ".join([rule, *names]), log, now, size)
            self.waiting[rule] -= 1
        elif event == "job_finished":
            job = self.running.pop(fields["job_id"], None)
            self.done += 1
            if job is not None:
                self.durations[job.rule].append(now - job.started)
        elif event == "job_error":
            job = self.running.pop(fields["jobid"], None)
            if job is not None:  # tried again, or never done
                self.failed += 1
                self.waiting[job.rule] += 1

    def seconds_left(self, now: float) -> tuple[float, bool]:
        """Return an estimate of the seconds left, and whether it covers all waiting jobs.

        It assumes that jobs take as long as earlier ones of their rule, and that as many run at once as so far. A rule
        without a finished job counts as zero.
        """
        samples = {rule: list(seconds) for rule, seconds in self.durations.items()}
        rest = busy = 0.0
        for job in self.running.values():
            spent, left = now - job.started, job.seconds_left()
            busy += spent
            if left is not None:
                samples.setdefault(job.rule, []).append(spent + left)
                rest += left
            elif job.rule in samples:
                rest += max(0.0, sum(samples[job.rule]) / len(samples[job.rule]) - spent)
        mean = {rule: sum(seconds) / len(seconds) for rule, seconds in samples.items()}
        waiting = {rule: count for rule, count in self.waiting.items() if count > 0 and rule != "all"}
        rest += sum(count * mean.get(rule, 0.0) for rule, count in waiting.items())
        busy += sum(sum(seconds) for seconds in self.durations.values())
        return rest / max(1.0, busy / max(1e-9, now - self.started)), set(waiting) <= set(mean)

    def lines(self, now: float, rows: int) -> list[str]:
        """Return the study's line and those of up to `rows` jobs, the longest-running first."""
        left, known = self.seconds_left(now)
        failed = f", {self.failed} failed" if self.failed else ""
        ends = (
            f"{'about' if known else 'at least'} {minutes(left)} left"
            if left or self.done
            else "time left not known yet"
        )
        head = f"{self.name}: {self.done} of {self.total} jobs{failed}, {minutes(now - self.started)} so far, {ends}"
        jobs = sorted(self.running.values(), key=lambda job: job.started)
        if len(jobs) > rows:
            head += f"; {len(jobs) - rows} more running"
        return [head, *(f"  {job.line(now)}" for job in jobs[:rows])]


class LiveProgress(logging.Handler):
    """Draw the study's lines once a second below the rows that scroll."""

    def __init__(self, study: Study, rows: int, terminal: int) -> None:
        super().__init__()
        self.study, self.rows, self.terminal = study, rows, terminal
        self.size: os.terminal_size | None = None
        self.stopping, self.guard = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._draw_often, daemon=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Update the jobs from a record; an error stops the display."""
        try:
            with self.guard:
                self.study.note(record, time.monotonic())
        except Exception:
            self.stopping.set()

    def begin(self) -> None:
        """Scroll to make room for the lines, and draw them until `end`."""
        room = "\n" * (self.rows + 1) + f"\x1b[{self.rows + 1}A"
        os.write(self.terminal, (room + self.frame(os.get_terminal_size(self.terminal))).encode())
        atexit.register(self.end)
        self.thread.start()

    def end(self) -> None:
        """Let the whole terminal scroll again."""
        self.stopping.set()
        self.thread.join()

    def _draw_often(self) -> None:
        with contextlib.suppress(Exception):
            while not self.stopping.wait(SECONDS):
                with self.guard:
                    frame = self.frame(os.get_terminal_size(self.terminal))
                os.write(self.terminal, frame.encode())
        with contextlib.suppress(OSError):
            os.write(self.terminal, b"\x1b7\x1b[r\x1b8\x1b[J")

    def frame(self, size: os.terminal_size) -> str:
        """Return the escape sequences that draw the lines in the terminal's last rows and leave its cursor in place."""
        first = size.lines - self.rows  # the row of the study's own line, counted from 1
        lines = self.study.lines(time.monotonic(), self.rows) + [""] * self.rows
        shown = [re.sub(r"[^ -~]", "?", line)[: size.columns - 1] for line in lines]
        drawn = "".join(f"\x1b[{first + row};1H\x1b[2K{shown[row]}" for row in range(self.rows + 1))
        # a terminal of another size may have left its cursor below the rows that scroll, where it would stay
        back = "\x1b8" if self.size in (None, size) else f"\x1b[{first - 1};1H"
        self.size = size
        return f"\x1b7\x1b[1;{first - 1}r{drawn}{back}"


def show(name: str, jobs_of_rule: Mapping[str, int], cores: int | None, logger: logging.Logger) -> None:
    """Show the study's progress if standard error is a terminal that can, and neither CI nor `TERM=dumb` is set."""
    try:
        terminal = sys.stderr.fileno()
        if not os.isatty(terminal) or os.environ.get("CI") or os.environ.get("TERM", "dumb") == "dumb":
            return
        rows = min(cores or MOST_ROWS, MOST_ROWS, os.get_terminal_size(terminal).lines // 3)
        if rows < 1:
            return
        live = LiveProgress(Study(name, jobs_of_rule, time.monotonic()), rows, terminal)
        live.begin()
        logger.addHandler(live)
    except Exception as error:
        print(f"no live progress: {error}", file=sys.stderr)
