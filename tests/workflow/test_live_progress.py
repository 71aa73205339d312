"""Test what a terminal shows of a running study, from log records and log files of Snakemake and the stages."""

import logging
import os
import pathlib
from types import SimpleNamespace
from typing import Any

import pytest
from tests.workflow.conftest import ROOT
from workflow import live_progress
from workflow.live_progress import LiveProgress, Study

from speciate.training.logs.progress import Progress

SIZE = os.terminal_size((60, 12))


def record(event: str, **fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"event": event, **fields})


def start(study: Study, number: int, rule: str, now: float, log: pathlib.Path | None = None, **wildcards: str) -> None:
    logs = [] if log is None else [str(log)]
    study.note(record("job_info", jobid=number, rule_name=rule, log=logs, wildcards=wildcards), now)


def end(study: Study, number: int, now: float) -> None:
    study.note(record("job_finished", job_id=number), now)


@pytest.fixture
def train_log(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> pathlib.Path:
    """Write the log of a training at step 120 of 480, with the code that a training logs with."""
    progress = Progress("top1 seed 0", 480, 0, 512, flops=1e9, peak=1e12)
    progress.last -= 60
    progress.started -= 60
    progress(SimpleNamespace(step=120), {"loss": 3.4567})  # type: ignore[arg-type]
    text = capsys.readouterr().err.replace("speciate: ", "speciate train: ")
    (tmp_path / "log").write_text("speciate train: an earlier attempt\n" + text)
    return tmp_path / "log"


def test_a_training_shows_its_step_loss_speed_and_time_left(train_log: pathlib.Path) -> None:
    study = Study("smoke", {"train": 1}, 0)
    text = train_log.read_text()
    train_log.write_text(text.splitlines()[0] + "\n")
    start(study, 1, "train", 0, train_log, ablation="top1", seed="0")
    assert study.lines(5, 2)[1] == "  train top1 0  0:05"  # lines of an earlier attempt are not shown
    train_log.write_text("")  # Snakemake removes what an earlier run has logged
    assert study.lines(6, 2)[1] == "  train top1 0  0:06"
    train_log.write_text(text.splitlines(keepends=True)[1])
    (line,) = study.lines(60, 2)[1:]
    assert line == "  train top1 0  [##........] step 120 of 480, loss 3.457, 1,024 tokens/s, 3:00 left"


def test_another_stage_shows_its_last_line(tmp_path: pathlib.Path) -> None:
    study = Study("smoke", {"encode": 1}, 0)
    start(study, 1, "encode", 0, tmp_path / "log", name="code", key="0123456789", shard="0-of-1")
    assert study.lines(61, 2)[1] == "  encode code 0-of-1  1:01"
    (tmp_path / "log").write_text("speciate encode: code: fastokens encodes\nspeciate encode: code train: 12 tok")
    assert study.lines(61, 2)[1] == "  encode code 0-of-1  1:01  code train: 12 tok"


def test_the_study_counts_jobs_and_the_time_that_the_rest_takes() -> None:
    study = Study("smoke", {"clean": 3, "train": 2, "all": 1}, 0)
    assert study.lines(0, 2) == ["smoke: 0 of 6 jobs, 0:00 so far, time left not known yet"]
    start(study, 1, "clean", 0)
    end(study, 1, 10)
    # two more jobs of 10 s, one at a time; the time of a training is not known yet
    assert study.lines(10, 2) == ["smoke: 1 of 6 jobs, 0:10 so far, at least 0:20 left"]
    start(study, 2, "train", 10)
    end(study, 2, 110)
    assert study.lines(110, 2) == ["smoke: 2 of 6 jobs, 1:50 so far, about 2:00 left"]
    start(study, 3, "train", 110)
    study.note(record("job_error", jobid=3), 120)
    assert study.lines(120, 2)[0].startswith("smoke: 2 of 6 jobs, 1 failed, 2:00 so far, about 2:")
    for number in range(4, 8):
        start(study, number, "clean", 120 + number)
    lines = study.lines(130, 2)
    assert lines[0].endswith("; 2 more running")
    assert lines[1:] == ["  clean  0:06", "  clean  0:05"]


def test_a_training_that_has_run_for_a_while_tells_how_long_the_next_will(train_log: pathlib.Path) -> None:
    study = Study("smoke", {"train": 2}, 0)
    start(study, 1, "train", 0)
    end(study, 1, 0)
    study.durations.clear()
    study.waiting["train"] = 2
    start(study, 2, "train", 0, train_log)
    study.running[2].log_size = 0
    assert study.seconds_left(60) == (180 + 240, True)


def test_a_frame_fills_the_last_rows_and_puts_the_cursor_back() -> None:
    study = Study("smoke", {"clean": 1}, 0)
    start(study, 1, "clean", 0, name="naïve\x1b[31m" * 20)
    live = LiveProgress(study, rows=2, terminal=-1)
    frame = live.frame(SIZE)
    head, *rows = frame.split("\x1b[2K")
    assert head == "\x1b7\x1b[1;9r\x1b[10;1H"  # rows 1 to 9 scroll
    assert [row.partition("\x1b")[0][:14] for row in rows] == ["smoke: 0 of 1 ", "  clean na?ve?", ""]
    assert len(rows[1].partition("\x1b")[0]) == 59
    assert frame.endswith("\x1b8")
    assert live.frame(os.terminal_size((60, 20))).endswith("\x1b[17;1H")  # into the rows that scroll
    assert live.frame(os.terminal_size((60, 20))).endswith("\x1b8")


def test_what_is_not_understood_ends_the_display_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setattr(live_progress.os, "get_terminal_size", lambda descriptor: SIZE)
    live = LiveProgress(Study("smoke", {}, 0), rows=2, terminal=theirs)
    live.begin()
    assert os.read(ours, 4096).startswith(b"\r\n\r\n\r\n\x1b[3A\x1b7\x1b[1;9r")
    live.handle(record("job_info", jobid=1))
    live.thread.join(10)
    os.write(theirs, b".")
    written = b""
    while not written.endswith(b"."):  # a terminal may hand on less than what was written
        written += os.read(ours, 65536)
    assert written.endswith(b"\x1b7\x1b[r\x1b8\x1b[J.")  # the whole terminal scrolls again
    live.end()
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("environment", "terminal", "shown"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "CI": "true"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm"}, False, False),
    ],
)
def test_it_is_shown_in_a_terminal_and_not_in_ci(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], terminal: bool, shown: bool
) -> None:
    begun: list[LiveProgress] = []
    for name in ("TERM", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours, theirs = os.openpty() if terminal else os.pipe()[::-1]
    monkeypatch.setattr(live_progress.sys, "stderr", SimpleNamespace(fileno=lambda: theirs if terminal else ours))
    monkeypatch.setattr(live_progress.os, "get_terminal_size", lambda descriptor: SIZE)
    monkeypatch.setattr(LiveProgress, "begin", lambda live: begun.append(live))
    logger = logging.Logger("snakemake")
    live_progress.show("smoke", {"train": 1}, 64, logger)
    assert bool(begun) == shown == bool(logger.handlers)
    assert all(live.rows == 4 for live in begun)  # a third of the terminal
    os.close(ours)
    os.close(theirs)


def test_the_workflow_shows_it() -> None:
    assert "live_progress.show(" in (ROOT / "workflow/Snakefile").read_text()
