"""Several optimizers as one, for an optimizer that has a rule for matrices and another for the rest.

Beside it, what a reader wants to know of such a rule: the singular values of the updates that it makes.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

NUM_WATCHED = 3
"""Matrices whose updates are looked at: the first, the last, and what lies evenly between."""


class CombinedOptimizer(torch.optim.Optimizer):
    """Several optimizers: their groups in a row, one state, so that it saves and loads as any other."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every part."""
        for part in self.parts:
            part.step()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Gives each part its own groups of those here, and the common state: loading puts new ones in their place."""
        start = 0
        for part in self.parts:
            stop = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:stop], self.state
            start = stop


def watched(groups: Iterable[dict[str, Any]], rules: tuple[str, ...]) -> list[tuple[Tensor, dict[str, Any]]]:
    """A few of the parameters that these rules update, each with its group."""
    all_of = [(parameter, group) for group in groups if group["rule"] in rules for parameter in group["params"]]
    last = len(all_of) - 1
    places = sorted({round(last * part / (NUM_WATCHED - 1)) for part in range(NUM_WATCHED)}) if all_of else []
    return [all_of[place] for place in places]


def spectrum(matrices: list[Tensor]) -> dict[str, float]:
    """The least, the median and the largest singular value of all these matrices; of a stack its first; or nothing."""
    if not matrices:
        return {}
    singles = [matrix.detach().flatten(0, -3)[0] if matrix.ndim > 2 else matrix.detach() for matrix in matrices]
    values_N = torch.cat([torch.linalg.svdvals(single.float()) for single in singles])
    least, largest = values_N.aminmax()
    return {"singular_min": float(least), "singular_median": float(values_N.median()), "singular_max": float(largest)}
