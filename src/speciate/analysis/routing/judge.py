"""Judge a RoutingRecord: fill the tables, find each layer's state, and say what cannot be said."""

from typing import Any

import numpy as np
import pandas as pd

from speciate.analysis import statistics
from speciate.analysis.routing import reliability, sentences
from speciate.analysis.routing.grouping import DocumentGroups, group_rows
from speciate.analysis.routing.judgement import TABLES, Judgement, Verdict
from speciate.analysis.routing.labels import label_test, shadow_columns
from speciate.analysis.routing.lifts import lifts_rows, statistics_of_labels
from speciate.analysis.routing.loads import GroupedSelector, experts_rows, group_selector, load_columns, spread_of
from speciate.analysis.routing.pooled import PooledNull
from speciate.analysis.routing.settings import JudgeSettings
from speciate.analysis.routing.single_tokens import by_token, pairs, token_types, within
from speciate.analysis.routing.single_tokens.by_document import document_information
from speciate.analysis.routing.single_tokens.by_token import TokenTables
from speciate.analysis.routing.single_tokens.sample import Choices, sampled_tokens
from speciate.analysis.routing.states import Finding, find_state
from speciate.analysis.routing.unsaid import Seen, unsaid_notes
from speciate.selection.routing_record import RoutingRecord

NAN = float("nan")
Row = dict[str, Any]


class _Collector:
    """Collects rows over layers and phases, and the tests that are corrected together."""

    def __init__(self) -> None:
        self.layers: list[Row] = []
        self.frames: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
        self.lift_null, self.pair_null = PooledNull(), PooledNull()

    def add(self, table: str, key: Row, rows: pd.DataFrame) -> None:
        self.frames[table].append(rows.assign(**key))

    def table(self, name: str) -> pd.DataFrame | None:
        parts = [part for part in self.frames[name] if len(part)]
        if not parts:
            return None
        return pd.concat(parts, ignore_index=True).reindex(columns=list(TABLES[name]))


def judge(record: RoutingRecord, settings: JudgeSettings | None = None) -> Judgement:
    """Judge a record, each phase apart.

    Args:
        record: what was read.
        settings: draws, confidence and seed.

    Raises:
        ValueError: no layer made a decision.
    """
    settings = settings or JudgeSettings()
    collector, parts = _Collector(), []
    for phase in record.phases:
        part = record if len(record.phases) == 1 else record.of_phase(phase)
        seen = _judge_phase(part, phase, settings, collector)
        if seen.layers:
            parts.append(seen)
    if not parts:
        raise ValueError(f"{record.source}: no layer made a routing decision")
    _correct(collector)
    verdicts, named = _conclude(record, collector, settings)
    layers = pd.DataFrame(collector.layers)
    tables = {name: table for name in TABLES if (table := collector.table(name)) is not None}
    tables = {"layers": layers.reindex(columns=list(TABLES["layers"])), **tables}
    return Judgement(
        source=record.source,
        against="",
        headline=sentences.headline(named),
        verdicts=tuple(verdicts),
        tables=tables,
        unsaid=unsaid_notes(parts, layers),
        notes=record.notes,
        facts=_facts(record, parts, collector, settings),
    )


def _judge_phase(record: RoutingRecord, phase: str, settings: JudgeSettings, collector: _Collector) -> Seen:
    groups = group_rows(record, settings)
    tokens = sampled_tokens(record, groups)
    tables = None if tokens is None else TokenTables(tokens, groups)
    rows: list[Row] = []
    for place, one in enumerate(record.selectors):
        selector = group_selector(one, groups)
        if not selector.decisions:
            continue
        key: Row = {"path": selector.path, "layer": selector.layer, "phase": phase}
        row = key | _judge_layer(record, selector, groups, key=key, collector=collector, tables=tables, place=place)
        rows.append(row)
    collector.layers += rows
    return Seen(record, groups, tokens, rows)


def _judge_layer(
    record: RoutingRecord,
    selector: GroupedSelector,
    groups: DocumentGroups,
    *,
    key: Row,
    collector: _Collector,
    tables: TokenTables | None,
    place: int,
) -> Row:
    settings = groups.settings
    spread = spread_of(selector, groups)
    row: Row = {
        "num_slots": selector.num_slots,
        "num_chosen": selector.num_chosen,
        "documents": int((selector.tally.decisions_G > 0).sum()),
        "max_expert": int(selector.share_S.argmax()),
        **load_columns(selector, spread, settings.confidence),
    }
    collector.add("experts", key, experts_rows(selector, spread, settings.confidence))
    choices = None if tables is None else tables.tokens.choices(place, selector.num_slots)
    if choices is not None and not len(choices.at_N):
        choices = None
    expected_GS = None
    if tables is not None and choices is not None:
        row |= _of_single_tokens(record, choices, tables, key=key, collector=collector)
        if tables.tokens.sample.has_tokens:
            expected_GS = by_token.expected_choices(tables, choices)
            collector.add("tokens", key, by_token.tokens_rows(tables, choices))
    test = label_test(selector, groups)
    shadows = [
        (name, group_selector(shadow, groups))
        for name, selectors in record.shadows.items()
        for shadow in selectors
        if shadow.path == selector.path and shadow.tally.decisions_G.any()
    ]
    row |= test.columns | shadow_columns(test, shadows, groups)
    row["tested_labels"] = [groups.labels[label] for label in test.design.tested] if test.design.can_test else []
    row["split_half"] = reliability.split_half(selector, groups)
    token_DS = np.full((len(groups.labels), selector.num_slots), np.nan)
    row |= dict.fromkeys(by_token.COLUMNS, NAN)
    if tables is not None and choices is not None and expected_GS is not None and len(groups.labels) > 1:
        row |= by_token.token_columns(tables, choices, expected_GS)
        token_DS = by_token.token_lifts(groups, expected_GS)
    if len(groups.labels) > 1:
        unlearned = [shadow for _, shadow in shadows]
        lifts = lifts_rows(selector, groups, test, token_DS=token_DS, shadows=unlearned)
        collector.add("lifts", key, lifts)
        if test.design.can_test:
            drawn = test.design.drawn
            observed_DS, drawn_BDS = statistics_of_labels(
                test.unit_US, drawn.domain_U, drawn.label_BU, selector.num_chosen
            )
            whole_DS = np.full((len(groups.labels), selector.num_slots), np.nan)
            whole_DS[test.design.tested] = observed_DS
            whole_BDS = np.zeros((len(drawn_BDS), *whole_DS.shape), dtype=drawn_BDS.dtype)
            whole_BDS[:, test.design.tested] = drawn_BDS
            collector.lift_null.add(whole_DS.ravel(), whole_BDS.reshape(len(drawn_BDS), -1))
        else:
            collector.lift_null.skip(len(lifts))
    return row


def _of_single_tokens(
    record: RoutingRecord, choices: Choices, tables: TokenTables, *, key: Row, collector: _Collector
) -> Row:
    tokens, groups = tables.tokens, tables.groups
    row: Row = dict.fromkeys(("document_bits", "document_p", "position_bits", "position_p", "type_bits", "type_p"), NAN)
    found = pairs.pair_test(choices, tokens, groups)
    if found is not None:
        collector.add("pairs", key, found.rows)
        collector.pair_null.add_in_blocks(found.observed_T, found.draw)
    if record.has_documents:
        row["document_bits"], row["document_p"] = document_information(choices, tokens, groups)
        bin_P, start_X = within.position_bins(tokens.sample.position_P)
        found_in_bins = within.within_documents(choices, bin_P[choices.at_N], tokens, groups)
        row["position_bits"], row["position_p"], counts_XS = found_in_bins
        collector.add("positions", key, _bin_rows(counts_XS, "position", start_X))
    if tokens.type_V.max(initial=-1) >= 0:
        found_in_bins = within.within_documents(choices, tokens.type_P[choices.at_N], tokens, groups)
        row["type_bits"], row["type_p"], counts_XS = found_in_bins
        collector.add("types", key, _bin_rows(counts_XS, "type", np.array(token_types.NAMES, dtype=object)))
    return row


def _bin_rows(counts_XS: np.ndarray[Any, Any], name: str, value_X: np.ndarray[Any, Any]) -> pd.DataFrame:
    used_X = counts_XS.sum(axis=1) > 0
    if not used_X.any():
        return pd.DataFrame()
    counts_XS, value_X = counts_XS[used_X], value_X[: len(used_X)][used_X]
    share_XS = counts_XS / counts_XS.sum(axis=1, keepdims=True)
    share_S = counts_XS.sum(axis=0) / counts_XS.sum()
    lift_XS = np.divide(share_XS, share_S, out=np.full_like(share_XS, np.nan), where=share_S > 0)
    return pd.DataFrame(
        {
            name: np.repeat(value_X, counts_XS.shape[1]),
            "expert": np.tile(np.arange(counts_XS.shape[1]), len(value_X)),
            "share": share_XS.ravel(),
            "lift": lift_XS.ravel(),
        }
    )


def _correct(collector: _Collector) -> None:
    """Fill the q-values: over layers, over lifts, and over pairs."""
    for p_name, q_name in (
        ("p_value", "q_value"),
        ("beyond_token_p", "beyond_token_q"),
        ("beyond_shadow_p", "beyond_shadow_q"),
    ):
        p_values = np.array([row[p_name] for row in collector.layers], dtype=np.float64)
        for row, value in zip(collector.layers, statistics.benjamini_hochberg(p_values).tolist(), strict=True):
            row[q_name] = value
    for name, null in (("lifts", collector.lift_null), ("pairs", collector.pair_null)):
        frames, found = collector.frames[name], null.p_values()
        if not frames:
            continue
        q_values = statistics.benjamini_hochberg(np.concatenate(found))
        start = 0
        for place, (frame, p_T) in enumerate(zip(frames, found, strict=True)):
            rows = frame.assign(p_value=p_T, q_value=q_values[start : start + len(frame)])
            frames[place] = pairs.most_extreme(rows) if name == "pairs" else rows
            start += len(frame)


def _conclude(
    record: RoutingRecord, collector: _Collector, settings: JudgeSettings
) -> tuple[list[Verdict], list[tuple[str, Finding]]]:
    """Find the state of each layer, and return the verdicts with what the layers are called."""
    unit = "documents" if record.has_documents else "windows"
    keys = [(row["layer"], row["phase"]) for row in collector.layers]
    by_layer = {
        (frame["path"].iloc[0], frame["phase"].iloc[0]): frame for frame in collector.frames["lifts"] if len(frame)
    }
    verdicts, named = [], []
    for row, key in zip(collector.layers, keys, strict=True):
        finding = find_state(row, num_labels=len(record.labels), level=settings.level)
        lifts = by_layer.get((row["path"], row["phase"]))
        top = None if lifts is None else sentences.top_lift(lifts, settings.level)
        name = sentences.layer_name(row, keys.count(key) > 1)
        text = sentences.verdict_sentence(name, row, finding, top=top, unit=unit)
        row |= {"state": finding.state, "sentence": text, "documents_needed": finding.documents_needed}
        verdicts.append(Verdict(row["path"], row["layer"], row["phase"], finding.state, text))
        named.append((name, finding))
    return verdicts, named


def _facts(
    record: RoutingRecord, parts: list[Seen], collector: _Collector, settings: JudgeSettings
) -> dict[str, int | float | str]:
    decisions = max((row["decisions"] for row in collector.layers), default=0.0)
    sampled = sum(part.tokens.num_tokens for part in parts if part.tokens is not None)
    return {
        "num_tokens": int(record.documents["num_tokens"].sum()) or int(decisions),
        "num_documents": len(record.documents) if record.has_documents else 0,
        "num_windows": 0 if record.has_documents else len(record.documents),
        "num_labels": len(record.labels),
        "num_layers": len(record.selectors),
        "num_shadows": len(record.shadows),
        "sampled_tokens": sampled,
        "confidence": settings.confidence,
        "permutations": settings.permutations,
        "resamples": settings.resamples,
        "seed": settings.seed,
        "lifts_tested": int(sum(np.isfinite(p).sum() for p in collector.lift_null.p_values())),
        "pairs_tested": int(sum(np.isfinite(p).sum() for p in collector.pair_null.p_values())),
    }
