"""Build a RoutingRecord from parts of a trace in any order, in bounded memory.

Sums are exact. What needs single tokens is kept for a sample of whole documents: a document is in it if the hash of its
name is small enough, so the same documents are sampled in every layer, whatever the order of the parts.

Shape suffixes: N decisions of a part, K chosen slots, S slots, G documents, L selectors, P sampled tokens.
"""

import zlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.selection.routing_record import (
    DOCUMENT_COLUMNS,
    NOT_CHOSEN,
    Integers,
    Note,
    RoutingRecord,
    SelectorRecord,
    TokenSample,
)
from speciate.selection.tally import Array, Tally

MOST_DOCUMENTS = 4096
"""Rows of a record. Further documents of a label share rows, so that sums by document stay small."""
MOST_SAMPLED = 1_000_000
"""Tokens in the sample."""
HASHES = 1 << 32


@dataclass(frozen=True)
class SelectorShape:
    """Which selector a part of a trace is about."""

    path: str
    layer: int
    num_slots: int
    num_chosen: int
    ordered: bool = True
    """Whether the k chosen slots are in order, the first choice first."""


@dataclass(eq=False)
class _Sums:
    shape: SelectorShape
    count_GS: npt.NDArray[np.int64]
    first_GS: npt.NDArray[np.int64]
    decisions_G: npt.NDArray[np.int64]
    probs_GS: Array | None = None
    entropy_G: Array | None = None
    next_position_G: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    parts: list[dict[str, npt.NDArray[np.generic]]] = field(default_factory=list)


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
        self._most_documents, self._most_sampled = most_documents, most_sampled
        self._rows: list[tuple[str, str, str, str]] = []
        self._row_of: dict[Hashable, int] = {}
        self._rows_of_label: dict[tuple[str, str], list[int]] = {}
        self._hash_G: list[int] = []
        self._shared: set[int] = set()
        self._sums: dict[str, _Sums] = {}
        self._threshold = HASHES

    def add_note(self, kind: str, text: str) -> None:
        """Note something that a reader of the record must know; the same note is kept once."""
        if Note(kind, text) not in self.notes:
            self.notes.append(Note(kind, text))

    def row(self, document: str, *, label: str = "", group: str = "", phase: str = "") -> int:
        """Return the row of a document, which is new unless it was asked for before.

        Args:
            document: the document's name.
            label: what the user calls its kind; empty if unknown.
            group: documents of one group count as one unit; empty: each document is its own.
            phase: `prompt`, `generation` or empty.
        """
        key = (document, label, phase)
        if key in self._row_of:
            return self._row_of[key]
        hashed = zlib.crc32(document.encode("utf-8", "surrogatepass"))
        same = self._rows_of_label.setdefault((label, phase), [])
        if len(self._rows) >= self._most_documents and same:
            row = same[hashed % len(same)]
            self._shared.add(row)
        else:
            row = len(self._rows)
            self._rows.append((document, label, group or document, phase))
            self._hash_G.append(hashed)
            same.append(row)
        self._row_of[key] = row
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
            choice_NK: chosen slots, `NOT_CHOSEN` for none.
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
        if choice_NK.size and (int(choice_NK.max()) >= shape.num_slots or int(choice_NK.min()) < NOT_CHOSEN):
            wrong = int(choice_NK.max()) if choice_NK.max() >= shape.num_slots else int(choice_NK.min())
            raise ValueError(f"{shape.path}: expert {wrong} is out of range: it has {shape.num_slots} experts")
        num_rows, slots = len(self._rows), shape.num_slots
        place_NK = row_N[:, None] * slots + choice_NK
        chosen_NK = choice_NK >= 0
        every = bool(chosen_NK.all())
        counted = np.bincount(place_NK.ravel() if every else place_NK[chosen_NK], minlength=num_rows * slots)
        sums.count_GS += counted.reshape(num_rows, slots)
        if shape.ordered and choice_NK.shape[1] > 1:
            first_N, made_N = choice_NK[:, 0], chosen_NK[:, 0]
            counted = np.bincount((row_N * slots + first_N)[made_N], minlength=num_rows * slots)
            sums.first_GS += counted.reshape(num_rows, slots)
        decided_N = chosen_NK.any(axis=1)
        sums.decisions_G += np.bincount(row_N if every else row_N[decided_N], minlength=num_rows)
        if probs_NS is not None:
            self._add_probs(sums, row_N, probs_NS)
        if position_N is None:
            position_N = _count_on(row_N, sums.next_position_G)
        sampled_N = self._is_sampled()[row_N]
        if sampled_N.any():
            part: dict[str, npt.NDArray[np.generic]] = {
                "key": (row_N[sampled_N] << 32) + position_N[sampled_N],
                "choice": choice_NK[sampled_N].astype(np.int16),
            }
            if token_N is not None:
                part["token"] = token_N[sampled_N].astype(np.int64)
            if weight_NK is not None:
                part["weight"] = weight_NK[sampled_N].astype(np.float32)
            if margin_N is not None:
                part["margin"] = margin_N[sampled_N].astype(np.float32)
            sums.parts.append(part)
            self._shrink(sums)

    def add_counts(self, shape: SelectorShape, row: int, count_S: Integers, first_S: Integers | None = None) -> None:
        """Add counts of choices of one document, for a source that has no single decisions."""
        sums = self._sums_of(shape)
        sums.count_GS[row] += count_S
        # a rest that k does not divide is an incomplete decision
        sums.decisions_G[row] = sums.count_GS[row].sum() // shape.num_chosen
        if first_S is not None:
            sums.first_GS[row] += first_S

    def build(self) -> RoutingRecord:
        """Return the record.

        Raises:
            ValueError: no decision was added.
        """
        found = [sums for sums in self._sums.values() if sums.count_GS.any()]
        if not found:
            raise ValueError(f"{self.source}: there is no routing decision in it")
        for sums in self._sums.values():
            self._grow(sums)
        found.sort(key=lambda sums: (sums.shape.layer, sums.shape.path))
        selectors = tuple(_selector_record(sums) for sums in found)
        tokens_G = np.max([sums.decisions_G for sums in found], axis=0)
        documents = pd.DataFrame(self._rows, columns=list(DOCUMENT_COLUMNS[:-1])).assign(num_tokens=tokens_G)
        record = RoutingRecord(
            source=self.source,
            documents=documents,
            selectors=selectors,
            sample=self._sample(found),
            has_documents=self.has_documents,
            notes=tuple(self.notes),
        )
        return record.of_documents(tokens_G > 0)

    def _sums_of(self, shape: SelectorShape) -> _Sums:
        sums = self._sums.get(shape.path)
        if sums is None:
            empty = np.zeros((0, shape.num_slots), dtype=np.int64)
            sums = self._sums[shape.path] = _Sums(shape, empty, empty.copy(), np.zeros(0, dtype=np.int64))
        elif sums.shape != shape:
            raise ValueError(f"{shape.path}: is described in two ways: {sums.shape} and {shape}")
        self._grow(sums)
        return sums

    def _grow(self, sums: _Sums) -> None:
        missing = len(self._rows) - len(sums.decisions_G)
        if missing <= 0:
            return

        def grown(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.concatenate([value, np.zeros((missing, *value.shape[1:]), dtype=value.dtype)])

        for name in ("count_GS", "first_GS", "decisions_G", "next_position_G"):
            setattr(sums, name, grown(getattr(sums, name)))
        if sums.probs_GS is not None and sums.entropy_G is not None:
            sums.probs_GS, sums.entropy_G = grown(sums.probs_GS), grown(sums.entropy_G)

    def _add_probs(self, sums: _Sums, row_N: Integers, probs_NS: npt.NDArray[np.floating]) -> None:
        probs_NS = probs_NS.astype(np.float64)
        if sums.probs_GS is None or sums.entropy_G is None:
            sums.probs_GS = np.zeros(sums.count_GS.shape)
            sums.entropy_G = np.zeros(len(sums.count_GS))
        logs_NS = np.log(np.where(probs_NS > 0, probs_NS, 1.0))
        np.add.at(sums.probs_GS, row_N, probs_NS)
        np.add.at(sums.entropy_G, row_N, -(probs_NS * logs_NS).sum(axis=1))

    def _is_sampled(self) -> npt.NDArray[np.bool_]:
        sampled_G = np.array(self._hash_G, dtype=np.int64) < self._threshold
        sampled_G[list(self._shared)] = False  # positions of documents that share a row would collide
        return sampled_G

    def _shrink(self, sums: _Sums) -> None:
        """Lower the threshold until one selector's sample fits, and drop what is above it from all."""
        while sum(len(part["key"]) for part in sums.parts) > self._most_sampled:
            self._threshold //= 2
            sampled_G = self._is_sampled()
            for other in self._sums.values():
                other.parts = [_kept(part, sampled_G[part["key"].astype(np.int64) >> 32]) for part in other.parts]

    def _sample(self, found: list[_Sums]) -> TokenSample | None:
        sampled_G = self._is_sampled()
        for sums in found:
            sums.parts = [_kept(part, sampled_G[part["key"].astype(np.int64) >> 32]) for part in sums.parts]
        keys = [part["key"] for sums in found for part in sums.parts]
        if not keys:
            return None
        key_P = np.unique(np.concatenate(keys)).astype(np.int64)
        width = max(sums.shape.num_chosen for sums in found)
        shape = (len(found), len(key_P), width)
        choice_LPK = np.full(shape, NOT_CHOSEN, dtype=np.int16)
        token_P = np.full(len(key_P), -1, dtype=np.int64)
        names = {name for sums in found for part in sums.parts for name in part}
        weight_LPK = np.full(shape, np.nan, dtype=np.float32) if "weight" in names else None
        margin_LP = np.full(shape[:2], np.nan, dtype=np.float32) if "margin" in names else None
        for place, sums in enumerate(found):
            for part in sums.parts:
                at = np.searchsorted(key_P, part["key"].astype(np.int64))
                num_chosen = part["choice"].shape[1]
                choice_LPK[place, at, :num_chosen] = part["choice"]
                if "token" in part:
                    token_P[at] = part["token"]
                if weight_LPK is not None and "weight" in part:
                    weight_LPK[place, at, :num_chosen] = part["weight"]
                if margin_LP is not None and "margin" in part:
                    margin_LP[place, at] = part["margin"]
        return TokenSample(
            document_P=key_P >> 32,
            position_P=key_P & (HASHES - 1),
            token_P=token_P,
            choice_LPK=choice_LPK,
            weight_LPK=weight_LPK,
            margin_LP=margin_LP,
            pieces=dict(self.pieces),
        )


def _kept(
    part: dict[str, npt.NDArray[np.generic]], kept_N: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[np.generic]]:
    return part if kept_N.all() else {name: value[kept_N] for name, value in part.items()}


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


def _selector_record(sums: _Sums) -> SelectorRecord:
    chosen, shape = sums.count_GS.astype(np.float64), sums.shape
    nan_GS = np.broadcast_to(np.nan, chosen.shape)
    decisions_G = sums.decisions_G.astype(np.float64)
    null_GS = np.broadcast_to((decisions_G / shape.num_slots)[:, None], chosen.shape)
    total_G = chosen.sum(axis=1, keepdims=True)
    # each decision spreads a total of 1 over its slots, however many it chose
    chosen_GS = np.divide(chosen * decisions_G[:, None], total_G, out=np.zeros_like(chosen), where=total_G > 0)
    entropy_G = np.full(len(chosen), np.nan) if sums.entropy_G is None else sums.entropy_G
    tally = Tally(
        decisions_G=decisions_G,
        chosen_GS=chosen_GS,
        probs_GS=nan_GS if sums.probs_GS is None else sums.probs_GS,
        null_GS=null_GS,
        divergence_G=decisions_G * np.log(shape.num_slots) - entropy_G,
        entropy_G=entropy_G,
    )
    has_first = shape.ordered and sums.first_GS.any()
    return SelectorRecord(
        shape.path, shape.layer, shape.num_chosen, tally, sums.first_GS.astype(np.float64) if has_first else None
    )
