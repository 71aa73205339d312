"""Watch a run's losses for spikes and divergence.

    spike at step t      z_t = (loss_t - mean) / std > 6, over the 50 losses before t (20 at least)
    diverged after t     the median of the last 20 losses > training.diverged_at * ln V, V tokens in the vocabulary

ln V is the loss of a uniform guess. A median ten times as high is neither a spike nor learning.
"""

import json
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Any

WINDOW, MIN_WINDOW, SPIKE = 50, 20, 6.0
RECENT = 20


class FailedRun(ValueError):
    """A run that cannot go on for a numerical reason; its state is that after the last good update."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report
        """The content of failure.json: step, reason, and where the first bad number was."""


def step_losses(lines: Iterable[str]) -> list[tuple[int, float]]:
    """Return (step, loss) of the lines of metrics.jsonl that have a loss."""
    rows = (json.loads(line) for line in lines)
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def num_skipped(lines: Iterable[str]) -> int:
    """Return the number of steps that were skipped, by the lines of metrics.jsonl."""
    return sum("skipped" in json.loads(line) for line in lines)


def skipped_in_a_row(lines: list[str]) -> int:
    """Return the number of steps that were skipped since the last update."""
    count = 0
    for line in reversed(lines):
        row = json.loads(line)
        if "loss" in row:
            break
        count += "skipped" in row
    return count


class LossMonitor:
    """Follows the losses of one run.

    Args:
        lines: the lines of metrics.jsonl so far, so that a resumed run is judged like an undisturbed one.
        limit: the loss above which a run has diverged; None: no limit.
        num_steps: of the whole run; a short one is judged by all of its losses.
    """

    def __init__(self, lines: Iterable[str], limit: float | None, num_steps: int) -> None:
        self.limit, self.min_recent = limit, min(RECENT, num_steps)
        self.losses: deque[float] = deque((loss for _, loss in step_losses(lines)), maxlen=WINDOW)

    def update(self, loss: float) -> float | None:
        """Take in the next loss; return its z if it is a spike."""
        z = None
        if len(self.losses) >= MIN_WINDOW:
            std = statistics.stdev(self.losses)
            z = (loss - statistics.fmean(self.losses)) / std if std > 0 else 0.0
        self.losses.append(loss)
        return z if z is not None and z > SPIKE else None

    def diverged(self) -> float | None:
        """Return the median of the last losses if it is above the limit."""
        recent = list(self.losses)[-RECENT:]
        if self.limit is None or len(recent) < self.min_recent:
            return None
        median = statistics.median(recent)
        return median if median > self.limit else None


def spikes(lines: Iterable[str]) -> list[dict[str, float]]:
    """Return every spike of a run, from the lines of metrics.jsonl: step, loss, z."""
    monitor, rows = LossMonitor((), None, 1), []
    for step, loss in step_losses(lines):
        z = monitor.update(loss)
        if z is not None:
            rows.append({"step": step, "loss": loss, "z": z})
    return rows
