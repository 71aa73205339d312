"""Build the card's tables of counts: sources, domains, drops, edits, lengths and formatting."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from speciate.config.stage import SPLITS
from speciate.config.stage_specs import CardDomain, CardSpec
from speciate.data.card.heavy_hitters import HeavyHitters
from speciate.data.card.stage_outputs import (
    StageOutputs,
    compared_scopes,
    read_batches,
    read_split_counts,
    shard_folders,
    sum_split_counts,
)
from speciate.data.card.summary import add_counts, octave_counts
from speciate.data.clean.audit import Audit
from speciate.data.clean.pipeline import CleaningCounts

Rows = dict[str, list[dict[str, Any]]]
CONTENT_OPTIONS = ("dataset", "name", "split", "paths")
"""Options of sources, of any kind, that say what a source reads."""
PIN_OPTIONS = ("version", "revision")
"""Options of sources, of any kind, that pin what a source reads."""


def count_tables(spec: CardSpec, written: StageOutputs, used: Mapping[str, Mapping[str, int]]) -> Rows:
    """Build the tables: name -> rows.

    Args:
        spec: the spec of the card.
        written: the outputs of the stages.
        used: split -> domain -> number of blocks in the mixture or the held-out set.
    """
    tables = ("data_sources", "data_domains", "data_drops", "data_edits", "data_lengths", "data_formatting")
    rows: Rows = {name: [] for name in tables}
    duplicates = _count_duplicates(spec, written)
    for domain in spec.domains:
        counts, by_source = written.cleaning_counts(domain)
        by_split = _domain_rows(spec, written, domain, used)
        dropped = {
            "clean": counts.dropped,
            "sort": Counter(max_bytes=written.documents_beyond_max_bytes(domain)),
            "cluster": duplicates[domain.name],
            "pack": Counter(max_tokens=sum(row["documents"] - row["encoded"] for row in by_split)),
        }
        of_domain = {
            "data_sources": [_source_row(domain, name, source_counts) for name, source_counts in by_source.items()],
            "data_domains": by_split,
            "data_drops": _drop_rows(dropped, counts.read),
            "data_edits": [
                {"filter": kind, "documents": documents, "share": _ratio(documents, counts.kept)}
                for kind, documents in sorted(counts.edited.items())
            ],
            "data_lengths": _length_rows(written, domain),
            "data_formatting": [*_formatting_rows("raw", counts.raw), *_formatting_rows("clean", counts.clean)],
        }
        for table, table_rows in of_domain.items():
            rows[table] += [{"domain": domain.name, **row} for row in table_rows]
    return rows


def _source_row(domain: CardDomain, name: str, counts: CleaningCounts) -> dict[str, Any]:
    """Describe a source: what it reads, how it is pinned, and how much of it was read and kept."""
    options = domain.sources[name]
    values = options.model_dump()
    content = [values[key] for key in CONTENT_OPTIONS if values.get(key)]
    pins = [values[key] for key in PIN_OPTIONS if values.get(key)]
    return {
        "source": name,
        "kind": options.kind,
        "what": ", ".join(", ".join(value) if isinstance(value, tuple) else str(value) for value in content),
        "pin": str(pins[0]) if pins else "",
        "sha256": str(values.get("sha256") or ""),
        "licence": domain.licences.get(name, ""),
        "documents_read": counts.read,
        "documents_kept": counts.kept,
        "bytes_read": counts.bytes_read,
        "bytes_kept": counts.bytes_kept,
    }


def _drop_rows(dropped: Mapping[str, Counter[str]], read: int) -> list[dict[str, Any]]:
    """Return a row for each stage and reason that dropped documents."""
    return [
        {"stage": stage, "reason": reason, "documents": documents, "share": _ratio(documents, read)}
        for stage, reasons in dropped.items()
        for reason, documents in sorted(reasons.items())
        if documents
    ]


def _count_duplicates(spec: CardSpec, written: StageOutputs) -> dict[str, Counter[str]]:
    """Count the documents dropped as duplicates: domain -> reason -> number."""
    dropped: dict[str, Counter[str]] = {domain.name: Counter() for domain in spec.domains}
    for scope in compared_scopes(spec):
        for table in read_batches(written.cluster[scope] / "duplicates.parquet", ["domain", "reason"]):
            for row in table.group_by(["domain", "reason"]).aggregate([([], "count_all")]).to_pylist():
                dropped[row["domain"]][row["reason"]] += row["count_all"]
    return dropped


def _domain_rows(
    spec: CardSpec, written: StageOutputs, domain: CardDomain, used: Mapping[str, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """Return a row for each split: its documents, tokens and blocks, and how many of the blocks are used."""
    written_splits = sum_split_counts(written.write_splits, domain, "documents", "bytes")
    groups = read_split_counts(written.assign_splits[domain.name] / "counts.json", "groups")
    losses = ("lost_characters", "lost_bytes")
    encoded = sum_split_counts(written.encode, domain, *losses)
    names = ("documents", "bytes", "blocks", "tokens_in", "tokens_packed")
    packed = read_split_counts(written.pack[domain.name] / "counts.json", *names)
    tokens = {split: counts["tokens_in"] - counts["documents"] for split, counts in packed.items()}
    return [
        {
            "split": split,
            "documents": written_splits[split]["documents"],
            "groups": int(groups[split]["groups"]),
            "bytes": written_splits[split]["bytes"],
            "encoded": packed[split]["documents"],
            "tokens": tokens[split],
            "bytes_per_token": _ratio(packed[split]["bytes"], tokens[split]),
            **{name: encoded[split][name] for name in losses},
            "blocks": packed[split]["blocks"],
            "tokens_lost": packed[split]["tokens_in"] - packed[split]["tokens_packed"],
            "blocks_used": used[split][domain.name],
            "tokens_used": used[split][domain.name] * spec.block_length,
            "epochs": _ratio(used[split][domain.name], packed[split]["blocks"]),
        }
        for split in SPLITS
    ]


def _ratio(part: float, total: float) -> float:
    return part / total if total else math.nan


def _length_rows(written: StageOutputs, domain: CardDomain) -> list[dict[str, Any]]:
    """Count the documents by octave of their length, in tokens and in characters."""
    rows = []
    packed = read_split_counts(written.pack[domain.name] / "counts.json", "documents")
    for split in SPLITS:
        remaining = packed[split]["documents"]  # `pack` leaves out those beyond max_tokens
        by_unit: dict[str, list[int]] = {"tokens": [], "characters": []}
        for part in shard_folders(written.encode[domain.name], domain):
            for table in read_batches(part / f"{split}.documents.parquet", ["start", "stop"]):
                lengths = (table["stop"].to_numpy() - table["start"].to_numpy())[:remaining]
                remaining -= len(lengths)
                by_unit["tokens"] = add_counts(by_unit["tokens"], octave_counts(lengths.astype(np.int64)))
        for part in shard_folders(written.sketch[domain.name], domain):
            by_octave = read_split_counts(part / "counts.json", "by_octave")[split]["by_octave"]
            by_unit["characters"] = add_counts(by_unit["characters"], by_octave)
        for unit, counts in by_unit.items():
            for octave, documents in enumerate(counts):
                if documents:
                    lengths = {"low": 2**octave, "high": 2 ** (octave + 1) - 1}
                    rows.append({"split": split, "unit": unit, **lengths, "documents": documents})
    return rows


def _formatting_rows(text: str, audit: Audit) -> list[dict[str, Any]]:
    """Return the rows of one audit of `text` (raw or clean); values of a single document are left out."""
    spaces = {"leading_space": audit.leading_space, "trailing_space": audit.trailing_space}
    rows = [(name, "", documents, 0) for name, documents in spaces.items() if documents]
    rows += [("unseen", name, documents, 0) for name, documents in sorted(audit.unseen_documents.items())]
    for measure, hitters in (("first", audit.first), ("prefix", audit.prefixes), ("suffix", audit.suffixes)):
        rows += [
            (measure, shared, documents, hitters.undercount)
            for shared, documents in _most_common(hitters)
            if documents > 1
        ]
    return [
        {
            "text": text,
            "measure": measure,
            "value": value,
            "documents": documents,
            "uncounted": uncounted,
            "share": _ratio(documents, audit.documents),
        }
        for measure, value, documents, uncounted in rows
    ]


def _most_common(hitters: HeavyHitters) -> list[tuple[str, int]]:
    """Return (text, documents), the most frequent first."""
    ranked = sorted(hitters.counts.items(), key=lambda item: (-item[1], item[0]))
    return [(hitters.texts[key], documents) for key, documents in ranked]
