"""The sums of one selector of a record that is being built.

Shape suffixes: N decisions, K chosen slots, S slots, R documents, G rows of the record.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.routing_record import Integers, SelectorRecord
from speciate.selection.tally import Array, Tally

UNKNOWN = 0
"""Number of slots of a selector whose source does not say it; the largest slot that was chosen decides."""


@dataclass(frozen=True)
class SelectorShape:
    """Which selector a part of a trace is about."""

    path: str
    layer: int
    num_slots: int
    """`UNKNOWN` where the source does not say it; all such selectors then have as many as the largest choice tells."""
    num_chosen: float
    ordered: bool = True
    """Whether the k chosen slots are in order, the first choice first."""


@dataclass(eq=False)
class SelectorSums:
    """Sums over the documents of one selector: of its choices, and of its probabilities where there are any."""

    shape: SelectorShape
    count_GS: npt.NDArray[np.int64]
    first_GS: npt.NDArray[np.int64]
    decisions_G: npt.NDArray[np.int64]
    probs_GS: Array | None = None
    entropy_G: Array | None = None
    tally: Tally | None = None
    """Sums that the source made itself, with their null, in place of all the above."""
    next_position_R: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def grow(self, num_rows: int) -> None:
        """Make room for new rows."""
        missing = num_rows - len(self.decisions_G)
        if missing > 0:
            self._map(lambda value: np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)]))

    def merge(self, new_G: Integers, num_rows: int) -> None:
        """Add up rows that have become one."""

        def added(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
            result = np.zeros((num_rows, *value.shape[1:]), dtype=value.dtype)
            np.add.at(result, new_G[: len(value)], value)
            return result

        self._map(added)

    def widen(self, slots: int) -> None:
        """Make room for slots whose number was unknown."""
        missing = slots - self.count_GS.shape[1]
        self.count_GS = np.pad(self.count_GS, ((0, 0), (0, missing)))
        self.first_GS = np.pad(self.first_GS, ((0, 0), (0, missing)))

    def _map(self, change: Any) -> None:
        self.count_GS, self.first_GS = change(self.count_GS), change(self.first_GS)
        self.decisions_G = change(self.decisions_G)
        if self.probs_GS is not None and self.entropy_G is not None:
            self.probs_GS, self.entropy_G = change(self.probs_GS), change(self.entropy_G)
        if self.tally is not None:
            self.tally = Tally(*(change(getattr(self.tally, part.name)) for part in fields(Tally)))


def count(sums: SelectorSums, place_N: Integers, choice_NK: npt.NDArray[np.integer], *, every: bool) -> None:
    """Add the decisions of a block; `every`: each of them chose k slots."""
    slots, low = sums.count_GS.shape[1], int(place_N.min())
    num_rows = int(place_N.max()) + 1 - low
    base_N = (place_N - low) * slots
    place_KN = base_N[None, :] + choice_NK.T
    counted = place_KN.ravel() if every else place_KN[choice_NK.T >= 0]
    rows = slice(low, low + num_rows)
    sums.count_GS[rows] += np.bincount(counted, minlength=num_rows * slots).reshape(num_rows, slots)
    if sums.shape.ordered and choice_NK.shape[1] > 1:
        counted = place_KN[0] if every else place_KN[0][choice_NK[:, 0] >= 0]
        sums.first_GS[rows] += np.bincount(counted, minlength=num_rows * slots).reshape(num_rows, slots)
    decided_N = place_N if every else place_N[(choice_NK >= 0).any(axis=1)]
    sums.decisions_G[rows] += np.bincount(decided_N - low, minlength=num_rows)


def add_probs(sums: SelectorSums, place_N: Integers, probs_NS: npt.NDArray[np.floating]) -> None:
    """Add the probabilities of some decisions, and the entropies of each."""
    probs_NS = probs_NS.astype(np.float64)
    if sums.probs_GS is None or sums.entropy_G is None:
        sums.probs_GS = np.zeros((len(sums.count_GS), probs_NS.shape[1]))
        sums.entropy_G = np.zeros(len(sums.count_GS))
    logs_NS = np.log(np.where(probs_NS > 0, probs_NS, 1.0))
    np.add.at(sums.probs_GS, place_N, probs_NS)
    np.add.at(sums.entropy_G, place_N, -(probs_NS * logs_NS).sum(axis=1))


def selector_record(sums: SelectorSums, ordered: bool) -> SelectorRecord:
    """Return the sums as a record has them; `ordered`: first choices are known, if the shape says so, too."""
    shape = sums.shape
    if sums.tally is not None:
        return SelectorRecord(shape.path, shape.layer, shape.num_chosen, sums.tally)
    chosen = sums.count_GS.astype(np.float64)
    slots = chosen.shape[1]
    nan_GS = np.broadcast_to(np.nan, chosen.shape)
    decisions_G = sums.decisions_G.astype(np.float64)
    null_GS = np.broadcast_to((decisions_G / slots)[:, None], chosen.shape)
    total_G = chosen.sum(axis=1, keepdims=True)
    # each decision spreads a total of 1 over its slots, however many it chose
    chosen_GS = np.divide(chosen * decisions_G[:, None], total_G, out=np.zeros_like(chosen), where=total_G > 0)
    entropy_G = np.full(len(chosen), np.nan) if sums.entropy_G is None else sums.entropy_G
    tally = Tally(
        decisions_G=decisions_G,
        chosen_GS=chosen_GS,
        probs_GS=nan_GS if sums.probs_GS is None else sums.probs_GS,
        null_GS=null_GS,
        divergence_G=decisions_G * np.log(slots) - entropy_G,
        entropy_G=entropy_G,
    )
    has_first = ordered and shape.ordered and sums.first_GS.any()
    return SelectorRecord(
        shape.path, shape.layer, shape.num_chosen, tally, sums.first_GS.astype(np.float64) if has_first else None
    )
