"""The card's tables of numbers, from what the stages counted: sources, domains, drops, edits, lengths, formatting."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from speciate.config.stage_specs import SPLITS, CardDomain, CardSpec
from speciate.data.card.heavy_hitters import HeavyHitters
from speciate.data.card.summary import added, octaves
from speciate.data.card.written import Written, batches, parts, scopes, splits
from speciate.data.clean.audit import Audit
from speciate.data.clean.pipeline import Counts

Rows = dict[str, list[dict[str, Any]]]
WHAT = ("dataset", "name", "split", "paths")
"""The options of a source that say what it reads, of whatever kind it is."""


def of_study(spec: CardSpec, written: Written, used: Mapping[str, Mapping[str, int]]) -> Rows:
    """Table -> rows.

    Args:
        spec: the study's data.
        written: the stages' folders.
        used: split -> domain -> blocks in the mixture or the held-out set.
    """
    tables = ("data_sources", "data_domains", "data_drops", "data_edits", "data_lengths", "data_formatting")
    rows: Rows = {name: [] for name in tables}
    duplicates = _duplicates(spec, written)
    for domain in spec.domains:
        counts, by_source = written.cleaned(domain)
        by_split = _domain(spec, written, domain, used)
        limited = Counter(max_tokens=sum(row["documents"] - row["encoded"] for row in by_split))
        dropped = {"clean": counts.dropped, "cluster": duplicates[domain.name], "encode": limited}
        found = {
            "data_sources": [_source(domain, name, mine) for name, mine in by_source.items()],
            "data_domains": by_split,
            "data_drops": _drops(dropped, counts.read),
            "data_edits": [
                {"filter": kind, "documents": documents, "share": _over(documents, counts.kept)}
                for kind, documents in sorted(counts.edited.items())
            ],
            "data_lengths": _lengths(written, domain),
            "data_formatting": [*_formatting("raw", counts.raw), *_formatting("clean", counts.clean)],
        }
        for table, of_domain in found.items():
            rows[table] += [{"domain": domain.name, **row} for row in of_domain]
    return rows


def _source(domain: CardDomain, name: str, counts: Counts) -> dict[str, Any]:
    """What a source is, what holds it fast, and what was read and kept of it."""
    options = domain.sources[name]
    said = [getattr(options, key, None) for key in WHAT]
    words = [", ".join(each) if isinstance(each, tuple) else str(each) for each in said if each]
    pins = [getattr(options, key, None) for key in ("version", "revision")]
    return {
        "source": name,
        "kind": options.kind,
        "what": ", ".join(words),
        "pin": next((str(pin) for pin in pins if pin), ""),
        "sha256": str(getattr(options, "sha256", None) or ""),
        "licence": domain.licences.get(name, ""),
        "documents_read": counts.read,
        "documents_kept": counts.kept,
        "bytes_read": counts.bytes_read,
        "bytes_kept": counts.bytes_kept,
    }


def _drops(dropped: Mapping[str, Counter[str]], read: int) -> list[dict[str, Any]]:
    """A row for each stage and reason that dropped something."""
    return [
        {"stage": stage, "reason": reason, "documents": documents, "share": _over(documents, read)}
        for stage, reasons in dropped.items()
        for reason, documents in sorted(reasons.items())
        if documents
    ]


def _duplicates(spec: CardSpec, written: Written) -> dict[str, Counter[str]]:
    """Domain -> reason -> documents dropped as another one's duplicate."""
    found: dict[str, Counter[str]] = {domain.name: Counter() for domain in spec.domains}
    for scope in scopes(spec):
        for table in batches(written.cluster[scope] / "duplicates.parquet", ["domain", "reason"]):
            for row in table.group_by(["domain", "reason"]).aggregate([([], "count_all")]).to_pylist():
                found[row["domain"]][row["reason"]] += row["count_all"]
    return found


def _domain(
    spec: CardSpec, written: Written, domain: CardDomain, used: Mapping[str, Mapping[str, int]]
) -> list[dict[str, Any]]:
    """A row a split: documents to blocks to what is used of them."""
    divided = written.numbers("write_splits", domain, "documents", "bytes")
    groups = splits(written.assign_splits[domain.name] / "counts.json", "groups")
    encoded = written.numbers("encode", domain, "documents", "tokens", "bytes")
    packed = written.numbers("pack", domain, "blocks", "tokens_in", "tokens_packed")
    return [
        {
            "split": split,
            "documents": divided[split]["documents"],
            "groups": int(groups[split]["groups"]),
            "bytes": divided[split]["bytes"],
            "encoded": encoded[split]["documents"],
            "tokens": encoded[split]["tokens"],
            "bytes_per_token": _over(encoded[split]["bytes"], encoded[split]["tokens"]),
            "blocks": packed[split]["blocks"],
            "tokens_lost": packed[split]["tokens_in"] - packed[split]["tokens_packed"],
            "blocks_used": used[split][domain.name],
            "tokens_used": used[split][domain.name] * spec.block_length,
            "epochs": _over(used[split][domain.name], packed[split]["blocks"]),
        }
        for split in SPLITS
    ]


def _over(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _lengths(written: Written, domain: CardDomain) -> list[dict[str, Any]]:
    """The documents of each octave of lengths, in tokens and in characters."""
    rows = []
    for split in SPLITS:
        by_unit: dict[str, list[int]] = {"tokens": [], "characters": []}
        for part in parts(written.encode[domain.name], domain):
            for table in batches(part / f"{split}.documents.parquet", ["start", "stop"]):
                lengths = table["stop"].to_numpy() - table["start"].to_numpy()
                by_unit["tokens"] = added(by_unit["tokens"], octaves(lengths.astype(np.int64)))
        for part in parts(written.sketch[domain.name], domain):
            told = splits(part / "counts.json", "by_octave")[split]["by_octave"]
            by_unit["characters"] = added(by_unit["characters"], told)
        for unit, counts in by_unit.items():
            for octave, documents in enumerate(counts):
                at = {"split": split, "unit": unit}
                if documents:
                    rows.append({**at, "low": 2**octave, "high": 2 ** (octave + 1) - 1, "documents": documents})
    return rows


def _formatting(text: str, audit: Audit) -> list[dict[str, Any]]:
    """The rows of one audit, of `text` (raw or clean); a beginning or an end that one document alone has is none."""
    spaces = {"leading_space": audit.leading_space, "trailing_space": audit.trailing_space}
    rows = [(name, "", documents, 0) for name, documents in spaces.items() if documents]
    rows += [("unseen", name, documents, 0) for name, documents in sorted(audit.unseen_documents.items())]
    for measure, found in (("first", audit.first), ("prefix", audit.prefixes), ("suffix", audit.suffixes)):
        rows += [(measure, shared, documents, found.below) for shared, documents in _commonest(found) if documents > 1]
    return [
        {
            "text": text,
            "measure": measure,
            "value": value,
            "documents": documents,
            "uncounted": uncounted,
            "share": _over(documents, audit.documents),
        }
        for measure, value, documents, uncounted in rows
    ]


def _commonest(found: HeavyHitters) -> list[tuple[str, int]]:
    """(text, documents), the most frequent first."""
    ranked = sorted(found.counts.items(), key=lambda item: (-item[1], item[0]))
    return [(found.texts[key], documents) for key, documents in ranked]
