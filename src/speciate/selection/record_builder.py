"""Build a RoutingRecord from parts of a trace in any order, in bounded memory.

Sums are exact. What needs single tokens is kept for a sample of whole documents (record_rows, record_sample).

Shape suffixes: N decisions of a part, K chosen slots, S slots, R documents, G rows of the record.
"""

from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.selection.record_rows import DocumentRows
from speciate.selection.record_sample import SampledTokens
from speciate.selection.record_sums import UNKNOWN as UNKNOWN
from speciate.selection.record_sums import SelectorShape as SelectorShape
from speciate.selection.record_sums import SelectorSums, add_probs, count, selector_record
from speciate.selection.routing_record import (
    DOCUMENT_COLUMNS,
    NOT_CHOSEN,
    Integers,
    Note,
    RoutingRecord,
)
from speciate.selection.tally import Tally

MOST_DOCUMENTS = 4096
"""Rows of a record. Further documents of a label share rows, so that sums by document stay small."""
MOST_SAMPLED = 1_000_000
"""Tokens in the sample."""
MOST_CHOICES = 1 << 27
"""Choices in the sample, over all selectors; with 48 layers of 8 choices this is the stricter limit."""
BLOCK = 1 << 16
"""Decisions that are counted at once: their places stay in the processor's cache."""


class RecordBuilder:
    """Adds up parts of a trace. Call `row` for each document and `add` for each part, then `build`."""

    def __init__(self, source: str, *, most_documents: int = MOST_DOCUMENTS, most_sampled: int = MOST_SAMPLED) -> None:
        """Begin a record.

        Args:
            source: what is read, as a page names it.
            most_documents: rows to keep; further documents of a label share rows by the hash of their names.
            most_sampled: tokens to keep in full.
        """
        self.source, self.has_documents = source, True
        self.notes: list[Note] = []
        self.pieces: dict[int, str] = {}
        self._most_sampled = most_sampled
        self._documents = DocumentRows(most_documents)
        self._sample = SampledTokens()
        self._sums: dict[str, SelectorSums] = {}
        self._ordered = True

    def add_note(self, kind: str, text: str) -> None:
        """Note something that a reader of the record must know; the same note is kept once."""
        if Note(kind, text) not in self.notes:
            self.notes.append(Note(kind, text))

    def forget_order(self) -> None:
        """Take the order of the k choices as unknown in all selectors, whatever their shapes claimed."""
        self._ordered = False

    def row(self, document: str, *, label: str = "", group: str = "", phase: str = "") -> int:
        """Return the row of a document, which is new unless it was asked for before.

        Args:
            document: the document's name.
            label: what the user calls its kind; empty if unknown.
            group: documents of one group count as one unit; empty: each document is its own.
            phase: `prompt`, `generation` or empty.
        """
        row = self._documents.number(document, label, group, phase)
        if self._documents.is_full:
            new_G = self._documents.share_rows()
            for sums in self._sums.values():
                sums.merge(new_G, len(self._documents.rows))
            self._sample.keep(self._documents.places()[1])
        return row

    def add(
        self,
        shape: SelectorShape,
        row_N: Integers,
        choice_NK: npt.NDArray[np.integer],
        *,
        position_N: Integers | None = None,
        token_N: Integers | None = None,
        weight_NK: npt.NDArray[np.floating] | None = None,
        margin_N: npt.NDArray[np.floating] | None = None,
        probs_NS: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add decisions of one selector.

        Args:
            shape: the selector; the same for every part about it.
            row_N: the row of each decision's document, from `row`.
            choice_NK: chosen slots, `NOT_CHOSEN` for none. Small integers whose columns are contiguous are fastest.
            position_N: position of each decision's token within its document; by default each document's tokens come
                in order.
            token_N: token ids, -1 if unknown.
            weight_NK: weights of the chosen slots.
            margin_N: logit of the last chosen slot minus that of the best one not chosen.
            probs_NS: probabilities before the choice; rows sum to one.

        Raises:
            ValueError: a slot is out of range, or the selector has had another shape; names the layer.
        """
        sums = self._sums_of(shape)
        if not len(choice_NK):
            return
        largest, smallest = int(choice_NK.max()), int(choice_NK.min())
        if smallest < NOT_CHOSEN or (shape.num_slots != UNKNOWN and largest >= shape.num_slots):
            wrong = smallest if smallest < NOT_CHOSEN else largest
            raise ValueError(f"{shape.path}: expert {wrong} is out of range: it has {shape.num_slots} experts")
        if largest >= sums.count_GS.shape[1]:
            sums.widen(largest + 1)
        place_R, _, differ = self._documents.places()
        place_N = place_R[row_N] if differ else row_N
        for start in range(0, len(choice_NK), BLOCK):
            block = slice(start, start + BLOCK)
            count(sums, place_N[block], choice_NK[block], every=smallest >= 0)
        if probs_NS is not None:
            add_probs(sums, place_N, probs_NS)
        self.add_to_sample(
            shape,
            row_N,
            choice_NK,
            position_N=position_N,
            token_N=token_N,
            weight_NK=weight_NK,
            margin_N=margin_N,
        )

    def add_to_sample(
        self,
        shape: SelectorShape,
        row_N: Integers,
        choice_NK: npt.NDArray[np.integer],
        *,
        position_N: Integers | None = None,
        token_N: Integers | None = None,
        weight_NK: npt.NDArray[np.floating] | None = None,
        margin_N: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add decisions to the sample alone, where `add_tally` has their sums; for the arguments see `add`."""
        if position_N is None:
            sums = self._sums_of(shape)
            missing = len(self._documents) - len(sums.next_position_R)
            sums.next_position_R = np.pad(sums.next_position_R, (0, missing))
            position_N = _count_on(row_N, sums.next_position_R)
        sampled_N = self._documents.places()[1][row_N]
        part = {"row": row_N, "position": position_N, "token": token_N, "choice": choice_NK}
        self._sample.add(shape.path, sampled_N, {**part, "weight": weight_NK, "margin": margin_N})
        while self._sample.num_tokens > self._most_sampled or self._sample.num_choices > MOST_CHOICES:
            self._sample.keep(self._documents.sample_fewer())

    def add_counts(self, shape: SelectorShape, row: int, count_S: Integers, first_S: Integers | None = None) -> None:
        """Add counts of choices of one document, for a source that has no single decisions."""
        sums = self._sums_of(shape)
        if len(count_S) > sums.count_GS.shape[1]:
            sums.widen(len(count_S))
        place, slots = self._documents.place(row), len(count_S)
        sums.count_GS[place, :slots] += count_S
        # a rest that k does not divide is an incomplete decision
        sums.decisions_G[place] = sums.count_GS[place].sum() // shape.num_chosen
        if first_S is not None:
            sums.first_GS[place, :slots] += first_S

    def add_tally(self, shape: SelectorShape, row_D: Integers, tally: Tally) -> None:
        """Add sums of documents that the source made itself, with probabilities and a null of its own.

        Args:
            shape: the selector, which gets no sums by `add` or `add_counts`.
            row_D: the row of each of the tally's groups.
            tally: sums by group.
        """
        sums = self._sums_of(shape)
        place_D = self._documents.places()[0][row_D]
        added = []
        for part in fields(Tally):
            value = getattr(tally, part.name)
            total = np.zeros((len(self._documents.rows), *value.shape[1:]))
            np.add.at(total, place_D, value)
            added.append(total)
        sums.tally = Tally(*added) if sums.tally is None else sums.tally + Tally(*added)

    def build(self) -> RoutingRecord:
        """Return the record.

        Raises:
            ValueError: no decision was added.
        """
        unknown = [sums for sums in self._sums.values() if sums.shape.num_slots == UNKNOWN]
        widest = max((sums.count_GS.shape[1] for sums in unknown), default=0)
        for sums in unknown:
            sums.widen(widest)
        for sums in self._sums.values():
            sums.grow(len(self._documents.rows))
        found = sorted(self._sums.values(), key=lambda sums: (sums.shape.layer, sums.shape.path))
        selectors = [selector_record(sums, self._ordered) for sums in found]
        selectors = [selector for selector in selectors if selector.tally.chosen_GS.any()]
        if not selectors:
            raise ValueError(f"{self.source}: there is no routing decision in it")
        tokens_G = np.max([selector.tally.decisions_G for selector in selectors], axis=0).astype(np.int64)
        place_R, sampled_R, _ = self._documents.places()
        self._sample.keep(sampled_R)
        self._note_repeats(place_R)
        documents = pd.DataFrame(self._documents.rows, columns=list(DOCUMENT_COLUMNS[:-1]))
        record = RoutingRecord(
            source=self.source,
            documents=documents.assign(num_tokens=tokens_G),
            selectors=tuple(selectors),
            sample=self._sample.build([selector.path for selector in selectors], place_R, self.pieces),
            has_documents=self.has_documents,
            notes=tuple(self.notes),
        )
        return record if (tokens_G > 0).all() else record.of_documents(tokens_G > 0)

    def _note_repeats(self, place_R: Integers) -> None:
        repeated = self._sample.repeated(place_R)
        if repeated:
            path, share = max(repeated.items(), key=lambda item: item[1])
            self.add_note(
                "duplicated_tokens",
                f"{share:.0%} of the tokens of {path} are there more than once, at the same position of the same"
                " document: ranks that share them recorded each, or a text was read twice. They count as often as"
                " they are there, so intervals are too narrow.",
            )

    def _sums_of(self, shape: SelectorShape) -> SelectorSums:
        sums = self._sums.get(shape.path)
        if sums is None:
            empty = np.zeros((0, shape.num_slots), dtype=np.int64)
            sums = self._sums[shape.path] = SelectorSums(shape, empty, empty.copy(), np.zeros(0, dtype=np.int64))
        elif sums.shape != shape:
            raise ValueError(f"{shape.path}: is described in two ways: {sums.shape} and {shape}")
        sums.grow(len(self._documents.rows))
        return sums


def _count_on(row_N: Integers, next_G: npt.NDArray[np.int64]) -> Integers:
    """Return each token's position, where the tokens of each document come in order; and count `next_G` on."""
    order_N = np.argsort(row_N, kind="stable")
    count_G = np.bincount(row_N, minlength=len(next_G))
    start_G = np.cumsum(count_G) - count_G
    position_N = np.empty(len(row_N), dtype=np.int64)
    position_N[order_N] = np.arange(len(row_N)) - np.repeat(start_G, count_G)
    position_N += next_G[row_N]
    next_G += count_G
    return position_N
