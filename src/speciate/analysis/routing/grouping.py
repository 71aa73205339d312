"""The documents of a record as groups with labels, and the units of each test.

Rows of one label and group (a template, an article) are near copies and count as one. The units of a test are gathered
from groups (`draws.gather_units`); a layer that skips tokens has units of its own.

Shape suffixes: R rows of a record, G groups, U units, B draws, D labels.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from speciate.analysis import draws, statistics
from speciate.analysis.draws import Integers, NullDraws, Units
from speciate.analysis.routing.settings import JudgeSettings
from speciate.selection.routing_record import RoutingRecord
from speciate.selection.tally import Array

FEWEST_GROUPS = 4
"""A label with fewer groups is left out of the tests where other labels have more, since all get as many units."""
FEWEST_OF_STRATUM = 5
"""Labels with fewer groups are resampled together when the load is bounded."""
MOST_UNITS_IN_ALL = 512


@dataclass(frozen=True, eq=False)
class LabelDesign:
    """Which labels one selector is tested on, and with which units and draws."""

    tested: Integers
    """The labels that are tested, as indices."""
    units: Units
    """Units of the tested labels; `domain_U` counts the tested labels from 0."""
    drawn: NullDraws

    @property
    def can_test(self) -> bool:
        """Whether there are two labels, each with two units."""
        return len(self.tested) > 1


@dataclass(eq=False)
class DocumentGroups:
    """Groups of a record's rows, and the draws over them."""

    labels: tuple[str, ...]
    group_R: Integers
    label_G: Integers
    """Label of each group, as an index; -1 for none."""
    settings: JudgeSettings
    is_sums: bool = False
    """Whether each row is the sum over a whole label, so that rows are no draws of anything."""
    _designs: dict[tuple[bytes, int], LabelDesign] = field(default_factory=dict)
    _all_units: dict[tuple[bytes, int], Units] = field(default_factory=dict)
    _times: dict[bytes, Array] = field(default_factory=dict)
    _halves: dict[bytes, Array] = field(default_factory=dict)

    @property
    def num_groups(self) -> int:
        return len(self.label_G)

    def sum(self, value_R: Array) -> Array:
        """Sum over the rows of each group."""
        if len(self.group_R) == self.num_groups:
            return value_R  # groups are numbered in the order of their first rows
        return draws.sum_into(self.group_R, self.num_groups, value_R)

    def label_sums(self, value_GX: Array) -> Array:
        """Sum over the groups of each label, (D, X)."""
        return draws.sum_into(self.label_G, len(self.labels), value_GX)

    def design(self, size_G: Array, most_units: int = MOST_UNITS_IN_ALL) -> LabelDesign:
        """Return which labels are tested, with which units, for groups of these numbers of decisions."""
        key = (size_G.tobytes(), most_units)
        if key not in self._designs:
            self._designs[key] = self._make_design(size_G, most_units)
        return self._designs[key]

    def _make_design(self, size_G: Array, most_units: int) -> LabelDesign:
        present_G = (size_G > 0) & (self.label_G >= 0)
        groups_D = np.bincount(self.label_G[present_G], minlength=len(self.labels))
        fewest = FEWEST_GROUPS if (groups_D >= FEWEST_GROUPS).sum() > 1 else 2
        tested = np.nonzero(groups_D >= fewest)[0]
        tested_G = present_G & np.isin(self.label_G, tested)
        units = gather(size_G, np.searchsorted(tested, self.label_G), tested_G, most_units)
        return LabelDesign(
            tested, units, draws.null_draws(units.domain_U, self.settings.permutations, self.settings.seed)
        )

    def units(self, size_G: Array, most_units: int = draws.MOST_UNITS) -> Units:
        """Return units of all groups, whatever their labels."""
        key = (size_G.tobytes(), most_units)
        if key not in self._all_units:
            self._all_units[key] = gather(size_G, np.zeros(self.num_groups, dtype=np.int64), size_G > 0, most_units)
        return self._all_units[key]

    def resamples(self, stratum_G: Integers) -> Array:
        """Return how often each draw takes each group, (B, G), drawn within strata."""
        key = stratum_G.tobytes()
        if key not in self._times:
            self._times[key] = draws.resample_counts(stratum_G, self.settings.resamples, self.settings.seed)
        return self._times[key]

    def halves(self, kept_G: npt.NDArray[np.bool_], number: int) -> Array:
        """Return splits of some of the groups in halves of every label, 1 for the second half, (number, kept)."""
        key = kept_G.tobytes()
        if key not in self._halves:
            seed, label_G = self.settings.seed, self.label_G[kept_G]
            splits = [draws.assign_halves(label_G, seed + split) for split in range(number)]
            self._halves[key] = np.stack(splits).astype(np.float64)
        return self._halves[key]

    def label_strata(self) -> Integers:
        """Return each group's label, so that every draw takes as many groups of each."""
        return self.label_G

    def load_strata(self) -> Integers:
        """Return the same with rare labels in one stratum, in which a single group would never vary."""
        number_D = np.bincount(self.label_G[self.label_G >= 0], minlength=len(self.labels) + 1)
        return np.where((self.label_G >= 0) & (number_D[self.label_G] >= FEWEST_OF_STRATUM), self.label_G, -1)

    def degrees(self, size_G: Array, stratum_G: Integers) -> float:
        """Return the number of groups that a bootstrap within strata is worth: one less for each further stratum."""
        kept_G = size_G > 0
        if not kept_G.any() or self.is_sums:
            return 0.0
        return statistics.effective_number(size_G[kept_G]) - (len(np.unique(stratum_G[kept_G])) - 1)


def gather(size_G: Array, domain_G: Integers, kept_G: npt.NDArray[np.bool_], most_units: int) -> Units:
    """Gather some of the groups into units, `most_units` in all at most (two a domain at least)."""
    unit_G = np.full(len(size_G), -1, dtype=np.int64)
    if not kept_G.any():
        return Units(unit_G, np.zeros(0, dtype=np.int64))
    units = draws.gather_units(size_G[kept_G], domain_G[kept_G])
    unit_G[kept_G] = units.unit_G
    units_D = np.bincount(units.domain_U)
    most = max(2, most_units // len(units_D))
    if units_D.max() <= most:
        return Units(unit_G, units.domain_U)
    # units of a domain are numbered in a row and about equally large, so any of them may be joined
    start_D = np.cumsum(units_D) - units_D
    kept_D = np.minimum(units_D, most)
    place_U = np.arange(len(units.domain_U)) - start_D[units.domain_U]
    joined_U = (np.cumsum(kept_D) - kept_D)[units.domain_U] + place_U % kept_D[units.domain_U]
    return Units(np.where(unit_G >= 0, joined_U[unit_G], -1), np.repeat(np.arange(len(kept_D)), kept_D))


def group_rows(record: RoutingRecord, settings: JudgeSettings) -> DocumentGroups:
    """Gather the rows of a record by label and group, in order of first appearance."""
    documents, labels, has_documents = record.documents, record.labels, record.has_documents
    keys = list(zip(documents["label"], documents["group"], strict=True))
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    place = {label: index for index, label in enumerate(labels)}
    return DocumentGroups(
        labels=labels,
        group_R=np.array([number[key] for key in keys], dtype=np.int64),
        label_G=np.array([place.get(label, -1) for label, _ in number], dtype=np.int64),
        settings=settings,
        is_sums=not has_documents and bool(labels) and len({label for label, _ in number}) == len(number),
    )
