"""Compare two records of the same texts: before and after, bf16 and fp32, training and inference.

Choices are compared token by token where both records have them, matched by document, phase and position; loads are
compared over the documents that both have.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.analysis import statistics
from speciate.analysis.routing import sentences
from speciate.analysis.routing.comparison.choices import compare_choices, flips_by_margin
from speciate.analysis.routing.comparison.load_moves import compare_loads
from speciate.analysis.routing.comparison.matching import Matched, match_records
from speciate.analysis.routing.grouping import DocumentGroups, group_rows
from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.judgement import TABLES, Judgement
from speciate.analysis.routing.pooled import PooledNull
from speciate.analysis.routing.settings import JudgeSettings
from speciate.selection.routing_record import Note, RoutingRecord

Row = dict[str, Any]


def judge_against(record: RoutingRecord, other: RoutingRecord, settings: JudgeSettings | None = None) -> Judgement:
    """Judge a record, and compare it with another one of the same texts.

    Raises:
        ValueError: the records have no layer or no document in common, or a layer has another number of experts.
    """
    settings = settings or JudgeSettings()
    matched = match_records(record, other)
    judgement = judge(record, settings)
    groups = group_rows(matched.one, settings)
    collected: dict[str, list[pd.DataFrame]] = {"agreement": [], "moves": [], "flips": []}
    null = PooledNull()
    for phase in matched.one.phases:
        kept_R = (matched.one.documents["phase"] == phase).to_numpy()
        for places in matched.layers:
            _compare_layer(matched, places, groups, phase=phase, kept_R=kept_R, null=null, collected=collected)
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in collected.items() if parts}
    agreement, moves = tables["agreement"], tables["moves"]
    agreement["q_value"] = statistics.benjamini_hochberg(agreement["p_value"].to_numpy(dtype=np.float64))
    moves["q_value"] = statistics.benjamini_hochberg(np.concatenate(null.p_values()))
    tables = {name: table.reindex(columns=list(TABLES[name])) for name, table in tables.items()}
    return replace(
        judgement,
        against=other.source,
        headline=f"{judgement.headline} {_headline(tables['agreement'], other.source, settings.level)}",
        tables={**judgement.tables, **tables},
        unsaid=(*judgement.unsaid, *_unsaid(matched)),
        notes=(*judgement.notes, *other.notes, *matched.notes),
        facts={
            **judgement.facts,
            "compared_documents": len(matched.one.documents),
            "compared_tokens": len(matched.one_N),
        },
    )


def _compare_layer(
    matched: Matched,
    places: tuple[int, int],
    groups: DocumentGroups,
    *,
    phase: str,
    kept_R: npt.NDArray[np.bool_],
    null: PooledNull,
    collected: dict[str, list[pd.DataFrame]],
) -> None:
    one, other = matched.one.selectors[places[0]], matched.other.selectors[places[1]]
    chosen = [groups.sum(np.where(kept_R[:, None], part.tally.chosen_GS, 0.0)) for part in (one, other)]
    if not all(chosen_GS.any() for chosen_GS in chosen):
        return
    key: Row = {"path": one.path, "layer": one.layer, "phase": phase}
    row, moves, tests = compare_loads(chosen[0], chosen[1], groups)
    null.add(*tests) if tests is not None else null.skip(len(moves))
    row |= compare_choices(matched, places, groups, kept_R)
    collected["agreement"].append(pd.DataFrame([key | row]))
    collected["moves"].append(moves.assign(**key))
    flips = flips_by_margin(matched, places, kept_R)
    if flips is not None:
        collected["flips"].append(flips.assign(**key))


def _headline(agreement: pd.DataFrame, other: str, level: float) -> str:
    """Return what two records have in common, in a sentence or two."""
    parts = []
    known = agreement[agreement["tokens"] > 0]
    if len(known):
        least = known.loc[known["overlap"].idxmin()]
        parts.append(
            f"Against {other}, tokens keep {sentences.percent(float(known['overlap'].mean()))} of their experts (least:"
            f" layer {int(least['layer'])}, {sentences.percent(float(least['overlap']))})"
        )
    moved = agreement[agreement["q_value"] <= level]
    if len(moved):
        most = moved.loc[moved["divergence_bits"].idxmax()]
        parts.append(
            f"the loads of {len(moved)} of {len(agreement)} layers moved by more than chance, most in layer"
            f" {int(most['layer'])} ({sentences.bits(float(most['divergence_bits']))} bits; expert"
            f" {int(most['moved_expert'])} by {sentences.percent(abs(float(most['moved_share'])))})"
        )
    elif agreement["q_value"].notna().any():
        parts.append(f"no layer's load moved by more than chance, of {len(agreement)}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else f"Compared with {other} by loads alone, without a test."


def _unsaid(matched: Matched) -> list[Note]:
    notes = []
    if not len(matched.one_N):
        notes.append(
            Note(
                "no_common_tokens",
                "Whether single tokens keep their experts: the two records have no single tokens in common. Records"
                " with each token's choices on the same texts settle it.",
            )
        )
    elif matched.one.sample is not None and matched.one.sample.margin_LP is None:
        notes.append(
            Note("no_margins", "Whether choices flip where two experts are close: the first record has no margins.")
        )
    return notes
