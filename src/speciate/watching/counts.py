"""CheckCounts: what the selectors of a model chose at one check, by document; and the measures of load that are logged.

Shape suffixes: L selectors, G documents, S slots.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from speciate.analysis import alarm, load, observation
from speciate.analysis.draws import Integers
from speciate.selection.tally import Array

PREFIX = "moe_load"
"""First part of the name of every logged value: `moe_load/max_vio/layer_3`."""
MEASURES = {
    "max_vio": "MaxVio: E times the largest share, minus 1; 0 if even, E/k - 1 if every token chose one expert",
    "effective_share": "effective experts over E: exp of the entropy of the shares, over E; 1 if even",
    "cv": "coefficient of variation of the shares: their standard deviation (over E, not E - 1) over their mean",
    "dead_share": "share of the experts that no token chose",
}
"""Measure of a layer's load -> what it is. They are of the shares of all choices, relative to an unlearned selector."""
EVIDENCE = {
    "wealth": "ln M, the evidence against health; the alarm is raised where that of `run` reaches ln(1 / false alarms)",
    "unevenness": "how near the load is to the limits of collapse, by the nearer of the two; above 1 it is beyond",
}
"""Further values, which no framework logs. `wealth` is that of a layer, or of the whole `run`."""


@dataclass(frozen=True)
class WatchedSelector:
    """One selector of the watched model."""

    path: str
    """Module path."""
    layer: int
    """Number of its layer; -1 where it has none."""
    num_slots: int
    num_chosen: float
    """k, the number of slots that a token chooses; 1 where an unlearned selector would not choose evenly."""

    @property
    def name(self) -> str:
        """Return the last part of the names of its values: `layer_3`, or its path where that says no layer."""
        return f"layer_{self.layer}" if self.layer >= 0 else self.path

    @property
    def limit(self) -> float:
        """Return the largest share of a selector that has not collapsed."""
        return load.max_share_limit(self.num_slots, self.num_chosen)


@dataclass(frozen=True, eq=False)
class SelectorCounts:
    """What one selector chose at one check."""

    shape: WatchedSelector
    chosen_GS: Array
    """Sums of choices by document; zero in a document without a decision."""
    null_S: Array
    """Shares of an unlearned selector."""

    def observations(self, domain_G: Integers) -> alarm.Observations:
        """Return the check as the alarm takes it."""
        return alarm.Observations(self.chosen_GS[None], domain_G, self.null_S, self.shape.num_chosen)

    def mean_share(self, domain_G: Integers) -> Array:
        """Return the share of the mean document, (S,), which the alarm is about; NaN where nothing was chosen."""
        total_G = self.chosen_GS.sum(axis=1)
        present_G = total_G > 0
        if not present_G.any():
            return np.full(self.shape.num_slots, np.nan)
        weight_G = alarm.share_weights(present_G[None], domain_G)[0] / present_G.sum()
        share_GS = self.chosen_GS / np.where(present_G, total_G, 1.0)[:, None]
        return observation.shares_against_null(weight_G @ share_GS, self.null_S)

    def measures(self) -> dict[str, float]:
        """Return the load's MEASURES, and its unevenness."""
        if not self.chosen_GS.any():
            return dict.fromkeys([*MEASURES, "unevenness"], math.nan)
        share_S = observation.shares_against_null(self.chosen_GS.sum(axis=0), self.null_S)
        return {
            "max_vio": float(load.max_violation(share_S)),
            "effective_share": float(load.effective_slots(share_S)) / self.shape.num_slots,
            "cv": math.sqrt(float(load.cv_squared(share_S))),
            "dead_share": float((share_S == 0).mean()),
            "unevenness": float(load.unevenness(share_S, self.shape.num_chosen)),
        }


@dataclass(frozen=True, eq=False)
class CheckCounts:
    """What all selectors chose at one check."""

    selectors: tuple[SelectorCounts, ...]
    domain_G: Integers
    """The domain of each document."""

    @property
    def num_documents(self) -> int:
        return len(self.domain_G)

    def values(self) -> dict[str, float]:
        """Return every measure of every selector under its logged name."""
        return {
            f"{PREFIX}/{measure}/{name}": value
            for name, one in zip(self.names(), self.selectors, strict=True)
            for measure, value in one.measures().items()
        }

    def names(self) -> list[str]:
        """Return the name of each selector; its path where several stand in one layer."""
        return unique_names([one.shape for one in self.selectors])


def unique_names(shapes: list[WatchedSelector]) -> list[str]:
    """Return each selector's name, `layer_3`; its path where several stand in one layer."""
    layers = [shape.name for shape in shapes]
    return [shape.path if layers.count(name) > 1 else name for shape, name in zip(shapes, layers, strict=True)]


def stack_ranks(parts: list[Mapping[str, Array]]) -> dict[str, Array]:
    """Return each selector's choices by document, the documents of all ranks one after another.

    Raises:
        ValueError: a rank has other selectors than the first.
    """
    for rank, part in enumerate(parts):
        if part.keys() != parts[0].keys():
            raise ValueError(f"rank {rank} watches other selectors than rank 0: {sorted(part)} and {sorted(parts[0])}")
    return {path: np.concatenate([part[path] for part in parts]) for path in parts[0]}
