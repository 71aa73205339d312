"""Build a RoutingRecord from parts of a trace in any order, in bounded memory.

Sums are exact. What needs single tokens is kept for a sample of whole documents: a document is in it if the hash of its
name is small enough, so the same documents are sampled in every layer, whatever the order of the parts. Where there are
more documents than rows, those outside the sample share rows of their label, by the same hash.

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
MOST_CHOICES = 1 << 27
"""Choices in the sample, over all selectors; with 48 layers of 8 choices this is the stricter limit."""
OWN_ROWS = 4
"""One row in so many is kept for the sample's documents, which never share theirs."""
HASHES = 1 << 32
UNKNOWN = 0
"""Number of slots of a selector whose source does not say it; the largest slot that was chosen decides."""
BLOCK = 1 << 16
"""Decisions that are counted at once: their places stay in the processor's cache."""


@dataclass(frozen=True)
class SelectorShape:
    """Which selector a part of a trace is about."""

    path: str
    layer: int
    num_slots: int
    """`UNKNOWN` where the source does not say it; all such selectors then have as many as the largest choice tells."""
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
    next_position_R: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    parts: list[dict[str, npt.NDArray[np.generic]]] = field(default_factory=list)
    num_sampled: int = 0


class RecordBuilder:
    """Adds up parts of a trace. Call `row` for each document and `add` for each part, then `build`.

    Shape suffix R: documents as `row` numbers them; G: rows of the record, which several documents may share.
    """

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
        self._row_of: dict[Hashable, int] = {}
        self._hash_R: list[int] = []
        self._place_R: list[int] = []
        self._rows: list[tuple[str, str, str, str]] = []
        self._strata: list[_Stratum] = []
        self._stratum_of: dict[tuple[str, str], int] = {}
        self._sums: dict[str, _Sums] = {}
        self._threshold = HASHES
        self._ordered = True
        self._last: dict[str, npt.NDArray[Any]] = {}
        self._arrays: tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], bool] | None = None

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
        key = (document, label, phase)
        if key in self._row_of:
            return self._row_of[key]
        # documents of one group share a hash, so that they share a row before others do
        hashed = zlib.crc32((group or document).encode("utf-8", "surrogatepass"))
        number = self._stratum_of.setdefault((label, phase), len(self._strata))
        if number == len(self._strata):
            self._strata.append(_Stratum(number))
        stratum, entry = self._strata[number], (document, label, group or document, phase)
        if hashed < self._threshold or not stratum.buckets:
            place = self._new_place(entry)
        else:
            bucket = hashed % stratum.buckets
            if bucket not in stratum.place_of:
                stratum.place_of[bucket] = self._new_place(entry)
            place = stratum.place_of[bucket]
        row = self._row_of[key] = len(self._hash_R)
        self._hash_R.append(hashed)
        self._place_R.append(place)
        stratum.rows.append(row)
        self._arrays = None
        if len(self._rows) > self._most_documents:
            self._share_rows()
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
            self._widen(sums, largest + 1)
        place_R, sampled_R, shared = self._places()
        place_N = place_R[row_N] if shared else row_N
        for start in range(0, len(choice_NK), BLOCK):
            block = slice(start, start + BLOCK)
            _count(sums, place_N[block], choice_NK[block], every=smallest >= 0)
        if probs_NS is not None:
            self._add_probs(sums, place_N, probs_NS)
        if position_N is None:
            position_N = _count_on(row_N, sums.next_position_R)
        sampled_N = sampled_R[row_N]
        if sampled_N.any():
            every = bool(sampled_N.all())

            def sampled(value: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
                return value.astype(dtype) if every else value[sampled_N].astype(dtype)

            part = self._shared_with_last(
                {"row": sampled(row_N, np.int32), "position": sampled(position_N, np.int32)}
                | ({} if token_N is None else {"token": sampled(token_N, np.int32)})
            )
            part["choice"] = sampled(choice_NK, np.int8 if largest < 128 else np.int16)
            if weight_NK is not None:
                part["weight"] = sampled(weight_NK, np.float32)
            if margin_N is not None:
                part["margin"] = sampled(margin_N, np.float32)
            sums.parts.append(part)
            sums.num_sampled += len(part["row"])
            self._shrink()

    def add_counts(self, shape: SelectorShape, row: int, count_S: Integers, first_S: Integers | None = None) -> None:
        """Add counts of choices of one document, for a source that has no single decisions."""
        sums = self._sums_of(shape)
        if len(count_S) > sums.count_GS.shape[1]:
            self._widen(sums, len(count_S))
        place, slots = self._place_R[row], len(count_S)
        sums.count_GS[place, :slots] += count_S
        # a rest that k does not divide is an incomplete decision
        sums.decisions_G[place] = sums.count_GS[place].sum() // shape.num_chosen
        if first_S is not None:
            sums.first_GS[place, :slots] += first_S

    def build(self) -> RoutingRecord:
        """Return the record.

        Raises:
            ValueError: no decision was added.
        """
        found = [sums for sums in self._sums.values() if sums.count_GS.any()]
        if not found:
            raise ValueError(f"{self.source}: there is no routing decision in it")
        unknown = [sums for sums in self._sums.values() if sums.shape.num_slots == UNKNOWN]
        widest = max((sums.count_GS.shape[1] for sums in unknown), default=0)
        for sums in unknown:
            self._widen(sums, widest)
        for sums in self._sums.values():
            self._grow(sums)
        found.sort(key=lambda sums: (sums.shape.layer, sums.shape.path))
        selectors = tuple(_selector_record(sums, self._ordered) for sums in found)
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

    def _new_place(self, entry: tuple[str, str, str, str]) -> int:
        self._rows.append(entry)
        return len(self._rows) - 1

    def _share_rows(self) -> None:
        """Let documents outside the sample share rows, until a part of the rows is free again.

        A label that has few documents keeps a row for each; one that has many gets as many rows as others that do.
        """
        hash_R = np.array(self._hash_R, dtype=np.int64)
        own = self._most_documents // OWN_ROWS
        while int((hash_R < self._threshold).sum()) > own:
            self._threshold //= 2
        if self._threshold < HASHES:
            self._keep(hash_R < self._threshold)
        # documents that share a row already come as one
        members = [[row for row in stratum.rows if hash_R[row] >= self._threshold] for stratum in self._strata]
        room, cap = (self._most_documents - own) * 3 // 4, 1
        while 2 * cap <= room and sum(min(len(rows), 2 * cap) for rows in members) <= room:
            cap *= 2
        for stratum, rows in zip(self._strata, members, strict=True):
            limit = cap if not stratum.buckets else min(cap, stratum.buckets)
            stratum.buckets = limit if stratum.buckets or len(rows) > limit else 0
        self._place_anew(hash_R)

    def _place_anew(self, hash_R: Integers) -> None:
        """Give every document its row anew, and add up the sums of those that now share one."""
        old_R, old_rows = np.array(self._place_R, dtype=np.int64), self._rows
        self._rows, target_G = [], np.full(len(old_rows), -1, dtype=np.int64)
        for stratum in self._strata:
            stratum.place_of = {}
        new_R = np.empty(len(old_R), dtype=np.int64)
        for stratum in self._strata:
            for row in stratum.rows:
                if hash_R[row] < self._threshold or not stratum.buckets:
                    place = self._new_place(old_rows[old_R[row]])
                else:
                    bucket = int(hash_R[row]) % stratum.buckets
                    if bucket not in stratum.place_of:
                        stratum.place_of[bucket] = self._new_place(old_rows[old_R[row]])
                    place = stratum.place_of[bucket]
                new_R[row] = place
                target_G[old_R[row]] = place
        self._place_R, self._arrays = new_R.tolist(), None

        def added(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
            result = np.zeros((len(self._rows), *value.shape[1:]), dtype=value.dtype)
            np.add.at(result, target_G[: len(value)], value)
            return result

        for sums in self._sums.values():
            sums.count_GS, sums.first_GS = added(sums.count_GS), added(sums.first_GS)
            sums.decisions_G = added(sums.decisions_G)
            if sums.probs_GS is not None and sums.entropy_G is not None:
                sums.probs_GS, sums.entropy_G = added(sums.probs_GS), added(sums.entropy_G)

    def _places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], bool]:
        """Return each document's row, whether it is sampled, and whether any two share a row."""
        if self._arrays is None:
            place_R, hash_R = np.array(self._place_R, dtype=np.int64), np.array(self._hash_R, dtype=np.int64)
            shared = bool((place_R != np.arange(len(place_R))).any())
            self._arrays = place_R, hash_R < self._threshold, shared
        return self._arrays

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
        sums.next_position_R = _longer(sums.next_position_R, len(self._hash_R))
        if len(sums.decisions_G) < len(self._rows):
            for name in ("count_GS", "first_GS", "decisions_G"):
                setattr(sums, name, _longer(getattr(sums, name), len(self._rows)))
            if sums.probs_GS is not None and sums.entropy_G is not None:
                sums.probs_GS = _longer(sums.probs_GS, len(self._rows))
                sums.entropy_G = _longer(sums.entropy_G, len(self._rows))

    def _widen(self, sums: _Sums, slots: int) -> None:
        for name in ("count_GS", "first_GS"):
            value = getattr(sums, name)
            setattr(sums, name, np.pad(value, ((0, 0), (0, slots - value.shape[1]))))

    def _add_probs(self, sums: _Sums, place_N: Integers, probs_NS: npt.NDArray[np.floating]) -> None:
        probs_NS = probs_NS.astype(np.float64)
        if sums.probs_GS is None or sums.entropy_G is None:
            sums.probs_GS = np.zeros(sums.count_GS.shape)
            sums.entropy_G = np.zeros(len(sums.count_GS))
        logs_NS = np.log(np.where(probs_NS > 0, probs_NS, 1.0))
        np.add.at(sums.probs_GS, place_N, probs_NS)
        np.add.at(sums.entropy_G, place_N, -(probs_NS * logs_NS).sum(axis=1))

    def _shared_with_last(self, part: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Return the part with the arrays of the last one where they are equal: layers mostly see the same tokens."""
        for name, value in part.items():
            last = self._last.get(name)
            if last is not None and np.array_equal(last, value):
                part[name] = last
        self._last = dict(part)
        return part

    def _shrink(self) -> None:
        """Lower the threshold until the sample fits, and drop what is above it from all selectors."""
        while True:
            sampled = [sums.num_sampled for sums in self._sums.values()]
            choices = sum(sums.num_sampled * sums.shape.num_chosen for sums in self._sums.values())
            if max(sampled) <= self._most_sampled and choices <= MOST_CHOICES:
                return
            self._threshold //= 2
            self._arrays = None
            self._keep(self._places()[1])

    def _keep(self, sampled_R: npt.NDArray[np.bool_]) -> None:
        """Keep the sampled tokens of some documents alone; arrays that parts share are shared afterwards, too."""
        arrays: dict[tuple[int, int], tuple[Any, ...]] = {}

        def kept(value: npt.NDArray[Any], row_N: npt.NDArray[Any]) -> npt.NDArray[Any]:
            which = id(value), id(row_N)
            if which not in arrays:
                arrays[which] = value, row_N, value[sampled_R[row_N]]  # their ids are theirs while they are held
            result: npt.NDArray[Any] = arrays[which][2]
            return result

        for sums in self._sums.values():
            every = [bool(sampled_R[part["row"]].all()) for part in sums.parts]
            sums.parts = [
                part if whole else {name: kept(value, part["row"]) for name, value in part.items()}
                for part, whole in zip(sums.parts, every, strict=True)
            ]
            sums.num_sampled = sum(len(part["row"]) for part in sums.parts)
        self._last = {}

    def _sample(self, found: list[_Sums]) -> TokenSample | None:
        place_R, sampled_R, _ = self._places()
        self._keep(sampled_R)
        keys = {_tokens_of(part): _keys(part, place_R) for sums in found for part in sums.parts}
        if not keys:
            return None
        key_P = np.unique(np.concatenate(list(keys.values())))
        if not len(key_P):
            return None
        width = max(sums.shape.num_chosen for sums in found)
        shape = (len(found), len(key_P), width)
        choice_LPK = np.full(shape, NOT_CHOSEN, dtype=np.int16)
        token_P = np.full(len(key_P), -1, dtype=np.int64)
        names = {name for sums in found for part in sums.parts for name in part}
        weight_LPK = np.full(shape, np.nan, dtype=np.float32) if "weight" in names else None
        margin_LP = np.full(shape[:2], np.nan, dtype=np.float32) if "margin" in names else None
        at_of: dict[tuple[int, int], npt.NDArray[np.int64]] = {}
        for place, sums in enumerate(found):
            for part in sums.parts:
                at = at_of.get(_tokens_of(part))
                if at is None:
                    at = at_of[_tokens_of(part)] = np.searchsorted(key_P, _keys(part, place_R))
                num_chosen = part["choice"].shape[1]
                choice_LPK[place, at, :num_chosen] = part["choice"]
                if "token" in part:
                    token_P[at] = part["token"]
                if weight_LPK is not None and "weight" in part:
                    weight_LPK[place, at, :num_chosen] = part["weight"]
                if margin_LP is not None and "margin" in part:
                    margin_LP[place, at] = part["margin"]
            sums.parts = []
        return TokenSample(
            document_P=key_P >> 32,
            position_P=key_P & (HASHES - 1),
            token_P=token_P,
            choice_LPK=choice_LPK,
            weight_LPK=weight_LPK,
            margin_LP=margin_LP,
            pieces=dict(self.pieces),
        )


@dataclass(eq=False)
class _Stratum:
    """The documents of one label and phase, which may share rows among each other."""

    number: int
    rows: list[int] = field(default_factory=list)
    buckets: int = 0
    """Rows that documents outside the sample share, a power of two; 0: each has its own."""
    place_of: dict[int, int] = field(default_factory=dict)


def _keys(part: dict[str, npt.NDArray[Any]], place_R: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    keys: npt.NDArray[np.int64] = (place_R[part["row"]] << 32) + part["position"]
    return keys


def _longer(value: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    missing = length - len(value)
    if missing <= 0:
        return value
    return np.concatenate([value, np.zeros((missing, *value.shape[1:]), dtype=value.dtype)])


def _count(sums: _Sums, place_N: Integers, choice_NK: npt.NDArray[np.integer], *, every: bool) -> None:
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


def _tokens_of(part: dict[str, npt.NDArray[Any]]) -> tuple[int, int]:
    """Return what is the same for parts about the same tokens, while both are held."""
    return id(part["row"]), id(part["position"])


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


def _selector_record(sums: _Sums, ordered: bool) -> SelectorRecord:
    chosen, shape = sums.count_GS.astype(np.float64), sums.shape
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
