"""Fill an explorer from a RoutingRecord, what was judged of it, and another record to set beside it.

Shape suffixes: P tokens of the sample, M tokens that are shown, K chosen slots, G documents.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from speciate.analysis.routing.judgement import Judgement
from speciate.config.contracts.slots import kind_of, slot_names
from speciate.reporting.explorer.data import (
    Check,
    Document,
    ExplorerData,
    Integers,
    Layer,
    Model,
)
from speciate.selection.routing_record import RoutingRecord, TokenSample

MOST_CHOICES = 4_000_000
"""Choices in the page, over all layers and both records: some 6 MB of page with 64 experts."""


KNOCK_OUT = ("path", "expert", "label", "cost_nats", "cost_low_nats", "cost_high_nats", "control_nats")
"""Columns of a table of knock-outs, one row for each expert and label; '' is the label of all texts together."""


def from_record(
    record: RoutingRecord,
    judgement: Judgement,
    *,
    other: RoutingRecord | None = None,
    knock_out: pd.DataFrame | None = None,
    most_choices: int = MOST_CHOICES,
) -> ExplorerData | None:
    """Return the explorer of a record's sample of documents; None where the record has no single tokens.

    Args:
        record: the record; its sample is shown.
        judgement: what is said of it.
        other: another record of the same texts, shown beside it where documents and positions are the same.
        knock_out: what the model loses without each expert; see `KNOCK_OUT`.
        most_choices: choices to show; documents beyond are left out.
    """
    sample = record.sample
    if sample is None or not len(sample.token_P):
        return None
    layers, _, width = sample.choice_LPK.shape
    num_records = 1 if other is None or other.sample is None else 2
    most_tokens = max(1, most_choices // (layers * width * num_records))
    shown_M = choose_tokens(record, sample, most_tokens)
    documents = tuple(document_rows(record, sample, shown_M))
    models = [_model(record, sample, shown_M, _experts_of(judgement, knock_out))]
    notes = [note.text for note in record.notes]
    if other is not None and other.sample is not None:
        at_M, row_M, differing = same_tokens(record, other, shown_M)
        models.append(_other_model(other, other.sample, at_M, row_M))
        if differing:
            notes.append(f"{differing:,} tokens have other ids in {other.source}; they are not shown beside it.")
    return ExplorerData(
        title=record.source,
        documents=documents,
        token_P=sample.token_P[shown_M],
        pieces=sample.pieces if other is None or other.sample is None else {**other.sample.pieces, **sample.pieces},
        models=tuple(models),
        notes=tuple(notes),
        left_out=left_out(record, sample, shown_M),
    )


def choose_tokens(record: RoutingRecord, sample: TokenSample, most_tokens: int) -> Integers:
    """Return the tokens of as many whole documents as fit, in turn from each label; a longer first one is cut."""
    labels = record.documents["label"].to_numpy()
    present, first, count = np.unique(sample.document_P, return_index=True, return_counts=True)
    place_of = {int(document): place for place, document in enumerate(present)}
    queues: dict[str, list[int]] = {}
    for document in present.tolist():
        queues.setdefault(str(labels[document]), []).append(document)
    chosen: list[int] = []
    room = most_tokens
    while any(queues.values()):
        for queue in queues.values():
            if queue:
                document = queue.pop(0)
                size = int(count[place_of[document]])
                if size <= room or not chosen:
                    chosen.append(document)
                    room -= size
    parts = [np.arange(first[place_of[d]], first[place_of[d]] + count[place_of[d]]) for d in sorted(chosen)]
    return np.concatenate(parts)[:most_tokens].astype(np.int64)


def document_rows(record: RoutingRecord, sample: TokenSample, shown_M: Integers) -> Iterator[Document]:
    """Yield the documents of the tokens that are shown, with their names as pages show them."""
    rows = record.documents
    numbers, counts = np.unique(sample.document_P[shown_M], return_counts=True)
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        row = rows.iloc[number]
        name = f"{row['document']} ({row['phase']})" if row["phase"] else str(row["document"])
        yield Document(name, str(row["label"]), count)


def left_out(record: RoutingRecord, sample: TokenSample, shown_M: Integers) -> tuple[str, ...]:
    """Return sentences that say which documents the explorer does not show."""
    total = len(record.documents)
    shown = len(np.unique(sample.document_P[shown_M]))
    num_tokens = int(record.documents["num_tokens"].sum())
    if shown == total and len(shown_M) >= num_tokens:
        return ()
    return (
        f"The explorer shows {len(shown_M):,} of {num_tokens:,} tokens, in {shown:,} of {total:,} documents; the tables"
        " and figures rest on all.",
    )


def same_tokens(record: RoutingRecord, other: RoutingRecord, shown_M: Integers) -> tuple[Integers, Integers, int]:
    """Return which of the shown tokens another record has too, and its rows; and how many have another id there.

    Tokens are the same where document, label, phase and position are, and the ids where both records have them.
    """
    one, two = record.sample, other.sample
    assert one is not None and two is not None
    keys = ["document", "label", "phase"]
    rows, two_rows = (
        side.documents[keys].astype(str).agg("\0".join, axis=1).to_numpy()[sample.document_P]
        for side, sample in ((record, one), (other, two))
    )
    left = pd.DataFrame({"name": rows[shown_M], "position": one.position_P[shown_M], "at": np.arange(len(shown_M))})
    right = pd.DataFrame({"name": two_rows, "position": two.position_P, "row": np.arange(len(two.token_P))})
    both = left.merge(right.drop_duplicates(["name", "position"]), on=["name", "position"]).sort_values("at")
    at_M, row_M = both["at"].to_numpy(dtype=np.int64), both["row"].to_numpy(dtype=np.int64)
    mine, theirs = one.token_P[shown_M][at_M], two.token_P[row_M]
    same = (mine == theirs) | (mine < 0) | (theirs < 0)
    return at_M[same], row_M[same], int((~same).sum())


@dataclass(frozen=True, eq=False)
class _Facts:
    """What was judged, as the explorer's layers have it."""

    experts: pd.DataFrame
    lifts: pd.DataFrame
    sentences: dict[str, str]
    unsaid: tuple[str, ...]


def _experts_of(judgement: Judgement, knock_out: pd.DataFrame | None) -> _Facts:
    tables = judgement.tables
    experts, phase = _one_phase(tables.get("experts", pd.DataFrame()))
    lifts, _ = _one_phase(tables.get("lifts", pd.DataFrame()))
    unsaid = [note.text for note in judgement.unsaid]
    unsaid += [f"Shares and lifts are those of the {phase}; the tables have the other phase too."] if phase else []
    experts = experts.rename(columns={"expert": "slot", "is_dead": "dead"})
    names = {"expert": "slot", "lift_low": "low", "lift_high": "high", "q_value": "q"}
    lifts = lifts.rename(columns=names)
    if knock_out is not None and len(knock_out):
        costs = knock_out.rename(
            columns={"expert": "slot", "cost_nats": "cost", "cost_low_nats": "cost_low", "cost_high_nats": "cost_high"}
        ).rename(columns={"control_nats": "control"})
        whole = costs[costs["label"] == ""][["path", "slot", "cost", "cost_low", "cost_high", "control"]]
        if len(experts):
            experts = experts.merge(whole, on=["path", "slot"], how="left")
        if len(lifts):
            lifts = lifts.merge(costs[["path", "slot", "label", "cost", "control"]], "left", ["path", "slot", "label"])
    sentences = {verdict.path: verdict.sentence for verdict in reversed(judgement.verdicts)}
    return _Facts(experts, lifts, sentences, tuple(unsaid))


def _one_phase(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows of all texts together where there are such, else of the first phase; and that phase."""
    phases = list(dict.fromkeys(rows["phase"])) if "phase" in rows else []
    if len(phases) < 2:
        return rows, ""
    chosen = "" if "" in phases else str(phases[0])
    return rows[rows["phase"] == chosen], chosen


def _model(record: RoutingRecord, sample: TokenSample, shown_M: Integers, facts: _Facts) -> Model:
    layers = []
    for place, selector in enumerate(record.selectors):
        width = _width(selector.num_chosen, sample)
        choice_MK = sample.choice_LPK[place, shown_M, :width]
        kind = kind_of(selector.path, selector.num_slots)
        experts, lifts = (
            rows[rows["path"] == selector.path].reset_index(drop=True) if len(rows) else None
            for rows in (facts.experts, facts.lifts)
        )
        layers.append(
            Layer(
                path=selector.path,
                kind=kind,
                slots=slot_names(kind, selector.num_slots),
                checks=(Check(-1, None, choice_MK),),
                ordered=selector.first_GS is not None or width == 1,
                sentence=facts.sentences.get(selector.path, ""),
                weight_MK=None if sample.weight_LPK is None else sample.weight_LPK[place, shown_M, :width],
                margin_M=None if sample.margin_LP is None else sample.margin_LP[place, shown_M],
                experts=experts if experts is not None and len(experts) else None,
                lifts=lifts if lifts is not None and len(lifts) else None,
                unsaid=facts.unsaid,
            )
        )
    return Model(record.source, "", tuple(layers))


def _other_model(other: RoutingRecord, sample: TokenSample, at_M: Integers, row_M: Integers) -> Model:
    layers = []
    for place, selector in enumerate(other.selectors):
        width = _width(selector.num_chosen, sample)
        choice_MK = sample.choice_LPK[place, row_M, :width]
        check, ordered = Check(-1, at_M, choice_MK), selector.first_GS is not None or width == 1
        kind = kind_of(selector.path, selector.num_slots)
        layers.append(Layer(selector.path, kind, slot_names(kind, selector.num_slots), (check,), ordered))
    return Model(other.source, "", tuple(layers))


def _width(num_chosen: float, sample: TokenSample) -> int:
    return min(int(sample.choice_LPK.shape[2]), max(1, math.ceil(num_chosen)))
