"""What a component measures beside its Selection: recall, gate means, agreement; kept only while somebody listens.

A component calls `note` in its forward pass. Outside of `listening` that is nothing, so a training step pays nothing;
what is dear to compute asks `metering()` first. Kept are means, by the module's path, the name and an optional
coordinate (a bin's edge, a noise level, a stage).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from speciate.selection.selection import recomputing

Key = tuple[str, str, float | None]
"""(module path, name, at)."""


class MetricCollector:
    """Sums of what the modules of one model note, in float64."""

    def __init__(self, model: nn.Module, *others: nn.Module) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        # an objective stands beside the model; what it notes is the run's
        self._paths |= {id(other): "objective" for other in others}
        self._sums: dict[Key, tuple[float, int]] = {}

    def add(self, module: nn.Module, name: str, value: Tensor | float, at: float | None) -> None:
        """Adds the elements of `value` to a mean."""
        value_N = torch.as_tensor(value).detach().double().flatten()
        if not len(value_N):
            return
        key = (self._paths[id(module)], name, at)
        total, count = self._sums.get(key, (0.0, 0))
        self._sums[key] = (total + float(value_N.sum()), count + len(value_N))

    def means(self) -> dict[Key, float]:
        """Mean of each."""
        return {key: total / count for key, (total, count) in self._sums.items()}

    def rows(self) -> list[list[object]]:
        """[path, name, at, mean] of each, for JSON."""
        return [[*key, mean] for key, mean in self.means().items()]


_collector: ContextVar[MetricCollector | None] = ContextVar("listener", default=None)


def is_collecting() -> bool:
    """Whether what is noted now is kept."""
    return _collector.get() is not None


def record_metric(module: nn.Module, name: str, value: Tensor | float, at: float | None = None) -> None:
    """Adds `value`, a number or a tensor of any shape, to the mean called `name` of this module.

    Args:
        module: the one that notes, a module of the model that is listened to.
        name: in snake_case; what hypotheses call `measured.<name>`.
        value: what was measured.
        at: where, if there is such an axis.
    """
    meter = _collector.get()
    if meter is not None and not recomputing():
        meter.add(module, name, value, at)


@contextmanager
def collect_metrics(model: nn.Module, *others: nn.Module) -> Iterator[MetricCollector]:
    """Keeps what the modules of `model`, and `others` beside it, note inside the block."""
    meter = MetricCollector(model, *others)
    before = _collector.set(meter)
    try:
        yield meter
    finally:
        _collector.reset(before)
