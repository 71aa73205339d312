"""A run that goes wrong: losses that are not finite, losses that jump, and runs that diverged.

    spike at step t      z_t = (loss_t - mean) / std  > 6, over the 50 losses before t (20 at least)
    diverged after t     the median of the last 20 losses > training.diverged_at * ln V, V tokens in the vocabulary

ln V is the loss of a guess by nobody who learned: a median ten times above it is no spike, and no learning.
"""

import json
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from speciate.training.distributed.ranks import number

WINDOW, LEAST, SPIKE = 50, 20, 6.0
RECENT = 20
PATIENCE = 10
"""Steps in a row that may be skipped."""


class FailedRun(ValueError):
    """A run that cannot go on for a reason in its numbers; the state is that after the last good update."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report
        """For failure.json: step, reason and where it was seen."""


def losses_of(lines: Iterable[str]) -> list[tuple[int, float]]:
    """(step, loss) of the lines of metrics.jsonl that have one."""
    rows = (json.loads(line) for line in lines)
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def num_skipped(lines: Iterable[str]) -> int:
    """Steps that were skipped, by the lines of metrics.jsonl."""
    return sum("skipped" in json.loads(line) for line in lines)


def skipped_in_a_row(lines: list[str]) -> int:
    """Steps skipped since the last update."""
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
        lines: the lines of metrics.jsonl so far, so that a continued run sees what an undisturbed one does.
        limit: the loss above which a run has diverged; None: any is taken.
        num_steps: of the whole run; a short one is judged by all of its losses.
    """

    def __init__(self, lines: Iterable[str], limit: float | None, num_steps: int) -> None:
        self.limit, self.least = limit, min(RECENT, num_steps)
        self.before: deque[float] = deque((loss for _, loss in losses_of(lines)), maxlen=WINDOW)

    def update(self, loss: float) -> float | None:
        """Takes the next loss; z where it is a spike."""
        z = None
        if len(self.before) >= LEAST:
            spread = statistics.stdev(self.before)
            z = (loss - statistics.fmean(self.before)) / spread if spread > 0 else 0.0
        self.before.append(loss)
        return z if z is not None and z > SPIKE else None

    def diverged(self) -> float | None:
        """The median of the last losses where it is above the limit."""
        recent = list(self.before)[-RECENT:]
        if self.limit is None or len(recent) < self.least:
            return None
        median = statistics.median(recent)
        return median if median > self.limit else None


def spikes(lines: Iterable[str]) -> list[dict[str, float]]:
    """Every spike of a run, from the lines of metrics.jsonl: step, loss, z."""
    watch, found = LossMonitor((), None, 1), []
    for step, loss in losses_of(lines):
        z = watch.update(loss)
        if z is not None:
            found.append({"step": step, "loss": loss, "z": z})
    return found


def layer_of(name: str) -> str:
    """`blocks.3.ffn.up.weight` -> `blocks.3`; anything else by its first part."""
    parts = name.split(".")
    return ".".join(parts[:2] if len(parts) > 1 and parts[1].isdigit() else parts[:1])


@torch.no_grad()
def gradient_norms(model: nn.Module) -> dict[str, float]:
    """The norm of the gradient by layer."""
    by_layer: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            by_layer.setdefault(layer_of(name), []).append(parameter.grad)
    return {layer: number(torch.nn.utils.get_total_norm(gradients)) for layer, gradients in by_layer.items()}


def not_finite(model: nn.Module, gradients: bool) -> list[str]:
    """The parameters whose values, or gradients, are not all finite, in the order of the forward pass's definition."""
    held = ((name, weight.grad if gradients else weight) for name, weight in model.named_parameters())
    return [name for name, value in held if value is not None and not bool(value.isfinite().all())]


def first_not_finite(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The module whose output is the first that is not finite when `forward` runs; None where every one is finite."""
    found: list[str] = []

    def looking(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            if not found and any(isinstance(one, Tensor) and not bool(one.isfinite().all()) for one in outputs):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(looking(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def plain(value: Any) -> Any:
    """The same as JSON that every reader takes: a number that is not finite as text."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
