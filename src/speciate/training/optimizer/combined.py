"""Several optimizers that act as one, for an optimizer with one rule for matrices and another for the rest.

With it are the helpers that observe such a rule: the singular values of its updates.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

NUM_WATCHED = 3
"""Number of matrices whose updates are observed: the first, the last, and evenly spaced ones between."""


class CombinedOptimizer(torch.optim.Optimizer):
    """Several optimizers with their groups in one list and one state, so that it saves and loads as any other."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share_groups_and_state()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters of every part once."""
        for part in self.parts:
            part.step()

    def telemetry(self) -> dict[str, float]:
        """Return what the validation lines of metrics.jsonl say about the last update, by name."""
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share_groups_and_state()

    def _share_groups_and_state(self) -> None:
        """Point each part at its own groups here and at the common state; loading replaces both."""
        start = 0
        for part in self.parts:
            stop = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:stop], self.state
            start = stop


def watched_parameters(groups: Iterable[dict[str, Any]], rules: tuple[str, ...]) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return a few of the parameters that these rules update, each with its group."""
    candidates = [(parameter, group) for group in groups if group["rule"] in rules for parameter in group["params"]]
    last = len(candidates) - 1
    indices = sorted({round(last * part / (NUM_WATCHED - 1)) for part in range(NUM_WATCHED)}) if candidates else []
    return [candidates[index] for index in indices]


def singular_value_summary(matrices: list[Tensor]) -> dict[str, float]:
    """Return the least, the median and the largest singular value of all these matrices; {} if there are none.

    Of a stack only the first matrix counts.
    """
    if not matrices:
        return {}
    singles = [matrix.detach().flatten(0, -3)[0] if matrix.ndim > 2 else matrix.detach() for matrix in matrices]
    values_N = torch.cat([torch.linalg.svdvals(single.float()) for single in singles])
    least, largest = values_N.aminmax()
    return {"singular_min": float(least), "singular_median": float(values_N.median()), "singular_max": float(largest)}
