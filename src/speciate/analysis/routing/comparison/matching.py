"""Bring two records to the layers, documents and tokens that both have.

Shape suffixes: R rows of a record, P sampled tokens, N matched tokens, G rows of a tally.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from speciate.analysis.draws import Integers
from speciate.analysis.routing import sentences
from speciate.selection.routing_record import Note, RoutingRecord, SelectorRecord

MOST_NAMES = 5


@dataclass(frozen=True, eq=False)
class Matched:
    """Two records brought to the same documents, layers and tokens."""

    one: RoutingRecord
    other: RoutingRecord
    layers: list[tuple[int, int]]
    """Places of the selectors that both have."""
    one_N: Integers
    """Sampled tokens that both have, as places in each sample."""
    other_N: Integers
    notes: list[Note]


def match_records(record: RoutingRecord, other: RoutingRecord) -> Matched:
    """Bring two records to what both have.

    Raises:
        ValueError: there is nothing that both have, or a layer has another number of experts.
    """
    notes: list[Note] = []
    layers = _match_layers(record, other, notes)
    one, another = _match_documents(record, other, notes)
    one_N, other_N = _match_tokens(one, another, notes)
    return Matched(one, another, layers, one_N, other_N, notes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _match_layers(record: RoutingRecord, other: RoutingRecord, notes: list[Note]) -> list[tuple[int, int]]:
    """Match selectors by path, or else by their layer's number."""

    def matches(keys: Sequence[str | int], other_keys: Sequence[str | int]) -> list[tuple[int, int]]:
        place = {key: index for index, key in enumerate(other_keys)}
        return [(index, place[key]) for index, key in enumerate(keys) if key in place]

    layers = matches([one.path for one in record.selectors], [one.path for one in other.selectors])
    if not layers:
        numbers, other_numbers = ([one.layer for one in part.selectors] for part in (record, other))
        unique = len(set(numbers)) == len(numbers) and len(set(other_numbers)) == len(other_numbers)
        layers = matches(numbers, other_numbers) if unique and -1 not in numbers else []
    if not layers:
        raise ValueError(
            f"{record.source} and {other.source} have no layer in common, by path or by number:"
            f" {_some([one.path for one in record.selectors])} against {_some([one.path for one in other.selectors])}"
        )
    for index, place in layers:
        one, two = record.selectors[index], other.selectors[place]
        if one.num_slots != two.num_slots:
            raise ValueError(
                f"{one.path}: {record.source} has {one.num_slots} experts, {other.source} has {two.num_slots};"
                " layers of different sizes cannot be compared"
            )
    left = len(record.selectors) + len(other.selectors) - 2 * len(layers)
    if left:
        notes.append(Note("layers_unmatched", f"{left} layers are in one of the two records alone: not compared."))
    return layers


def _match_documents(
    record: RoutingRecord, other: RoutingRecord, notes: list[Note]
) -> tuple[RoutingRecord, RoutingRecord]:
    keys, other_keys = (
        list(zip(part.documents["document"], part.documents["phase"], strict=True)) for part in (record, other)
    )
    place = {key: index for index, key in enumerate(other_keys)}
    common = [(index, place[key]) for index, key in enumerate(keys) if key in place]
    if not common or len(set(keys)) < len(keys) or len(place) < len(other_keys):
        if common:
            raise ValueError(
                f"{record.source} and {other.source}: several rows have the same document and phase, so that documents"
                " cannot be matched by name"
            )
        raise ValueError(
            f"{record.source} and {other.source} have no document in common: {_some([name for name, _ in keys])}"
            f" against {_some([name for name, _ in other_keys])}; compare records of the same texts"
        )
    left = len(keys) + len(other_keys) - 2 * len(common)
    if left:
        notes.append(
            Note("documents_unmatched", f"{left} documents are in one of the two records alone: not compared.")
        )
    one_R, other_R = (np.array(side, dtype=np.int64) for side in zip(*common, strict=True))
    return _in_order(record, one_R), _in_order(other, other_R)


def _in_order(record: RoutingRecord, row_R: Integers) -> RoutingRecord:
    """Return the record of these rows, in this order; the sample keeps its order."""
    new_R = np.full(len(record.documents), -1, dtype=np.int64)
    new_R[row_R] = np.arange(len(row_R))
    sample = record.sample
    if sample is not None:
        kept = sample.of_documents(new_R >= 0)
        # `of_documents` numbers rows by their old order
        sample = replace(kept, document_P=new_R[np.sort(row_R)][kept.document_P])
    return replace(
        record,
        documents=record.documents.iloc[row_R].reset_index(drop=True),
        selectors=tuple(_rows_of(selector, row_R) for selector in record.selectors),
        sample=sample,
        shadows={},
    )


def _rows_of(selector: SelectorRecord, row_R: Integers) -> SelectorRecord:
    parts = {name: value[row_R] for name, value in vars(selector.tally).items()}
    first_GS = None if selector.first_GS is None else selector.first_GS[row_R]
    return replace(selector, tally=type(selector.tally)(**parts), first_GS=first_GS)


def _match_tokens(one: RoutingRecord, other: RoutingRecord, notes: list[Note]) -> tuple[Integers, Integers]:
    empty = np.zeros(0, dtype=np.int64)
    if one.sample is None or other.sample is None:
        return empty, empty
    key_P, other_key_P = ((sample.document_P << 32) + sample.position_P for sample in (one.sample, other.sample))
    _, one_N, other_N = np.intersect1d(key_P, other_key_P, return_indices=True)
    token_N, other_token_N = one.sample.token_P[one_N], other.sample.token_P[other_N]
    same_N = (token_N == other_token_N) | (token_N < 0) | (other_token_N < 0)
    if len(same_N) and not same_N.all():
        notes.append(
            Note(
                "tokens_differ",
                f"{percent_of(~same_N)} of the tokens at the same place have another id in the other record: these are"
                " not compared.",
            )
        )
    if len(same_N) and same_N.mean() < 0.5:
        raise ValueError(
            f"{one.source} and {other.source}: {percent_of(~same_N)} of the tokens at the same document and position"
            " have another id; compare records of the same tokens"
        )
    return one_N[same_N].astype(np.int64), other_N[same_N].astype(np.int64)


def percent_of(mask_N: npt.NDArray[np.bool_]) -> str:
    """Return the share of the true ones as a percentage."""
    return sentences.percent(float(mask_N.mean()))
