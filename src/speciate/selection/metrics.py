"""Metrics that modules record in their forward pass (recall, gate means, agreement), while they are collected.

A component calls `record_metric`. Outside of `collect_metrics` the call does nothing, so a training step pays nothing;
expensive metrics should check `is_collecting()` first. The collector keeps means, by the module's path, the metric's
name and an optional coordinate (a bin's edge, a noise level, a stage).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from speciate.selection.selection import is_recomputing

Key = tuple[str, str, float | None]
"""(module path, name of the metric, coordinate `at`)."""


class MetricCollector:
    """Sums of the metrics that the modules of one model record, in float64."""

    def __init__(self, model: nn.Module, *others: nn.Module) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        # an objective is not part of the model; what it records belongs to the run
        self._paths |= {id(other): "objective" for other in others}
        self._sums: dict[Key, tuple[float, int]] = {}

    def add(self, module: nn.Module, name: str, value: Tensor | float, at: float | None) -> None:
        """Add the elements of `value` to a mean."""
        value_N = torch.as_tensor(value).detach().double().flatten()
        if not len(value_N):
            return
        key = (self._paths[id(module)], name, at)
        total, count = self._sums.get(key, (0.0, 0))
        self._sums[key] = (total + float(value_N.sum()), count + len(value_N))

    def means(self) -> dict[Key, float]:
        """Return the mean of each metric."""
        return {key: total / count for key, (total, count) in self._sums.items()}

    def rows(self) -> list[list[object]]:
        """Return [path, name, at, mean] of each metric, for JSON."""
        return [[*key, mean] for key, mean in self.means().items()]


_collector: ContextVar[MetricCollector | None] = ContextVar("collector", default=None)


def is_collecting() -> bool:
    """Tell whether metrics are collected now."""
    return _collector.get() is not None


def record_metric(module: nn.Module, name: str, value: Tensor | float, at: float | None = None) -> None:
    """Add `value`, a number or a tensor of any shape, to the module's mean of the metric `name`.

    Args:
        module: the module that records, a part of the model whose metrics are collected.
        name: name of the metric in snake_case; hypotheses call it `measured.<name>`.
        value: the measured value or values.
        at: coordinate, if the metric has one.
    """
    collector = _collector.get()
    if collector is not None and not is_recomputing():
        collector.add(module, name, value, at)


@contextmanager
def collect_metrics(model: nn.Module, *others: nn.Module) -> Iterator[MetricCollector]:
    """Collect the metrics that the modules of `model`, and `others` beside it, record inside the `with` block."""
    collector = MetricCollector(model, *others)
    before = _collector.set(collector)
    try:
        yield collector
    finally:
        _collector.reset(before)
