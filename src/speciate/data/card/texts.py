"""The card's tables that are about the texts themselves: duplicates, overlaps, documents to read."""

import itertools
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speciate.config.stage_specs import SPLITS, CardDomain, CardSpec
from speciate.data.card.counts import Rows
from speciate.data.card.sketch import Sketch, containment, similarity
from speciate.data.card.summary import EXCERPT, NUM_SAMPLES
from speciate.data.card.written import Written, batches, parts, rows, scopes
from speciate.data.clean.dropped import rank
from speciate.data.documents import Shard

NUM_DROPPED = 3
"""Samples of each reason."""
NUM_CLUSTERS = 3
"""Duplicates shown of each scope and reason, from its largest clusters."""


def of_study(spec: CardSpec, written: Written) -> Rows:
    """Table -> rows."""
    samples = [row for domain in spec.domains for row in (*_kept(written, domain), *_dropped(written, domain))]
    clusters: list[dict[str, Any]] = []
    for scope in scopes(spec):
        sizes, examples = _clusters(spec, written, scope)
        clusters += sizes
        samples += examples
    return {"data_samples": samples, "data_duplicates": clusters, "data_overlaps": _overlaps(spec, written)}


def _kept(written: Written, domain: CardDomain) -> list[dict[str, Any]]:
    """A few documents of each split: over all shards those of lowest rank."""
    columns = ["split", "id", "characters", "excerpt", "rank"]
    found = [
        row for part in parts(written.sketch[domain.name], domain) for row in rows(part / "samples.parquet", columns)
    ]
    found.sort(key=lambda row: (SPLITS.index(row["split"]), row["rank"], row["id"]))
    return [
        {"domain": domain.name, "what": "kept", **{key: row[key] for key in columns[:-1]}}
        for _, group in itertools.groupby(found, key=lambda row: row["split"])
        for row in itertools.islice(group, NUM_SAMPLES)
    ]


def _dropped(written: Written, domain: CardDomain) -> list[dict[str, Any]]:
    """A few documents of each reason for which a filter dropped some."""
    columns = ["reason", "note", "id", "characters", "text"]
    found = [
        row for part in parts(written.clean[domain.name], domain) for row in rows(part / "dropped.parquet", columns)
    ]
    found.sort(key=lambda row: (row["reason"], rank(row["id"]), row["id"]))
    return [
        {
            "domain": domain.name,
            "what": "dropped",
            **{key: row[key] for key in columns[:-1]},
            "excerpt": row["text"][:EXCERPT],
        }
        for _, group in itertools.groupby(found, key=lambda row: row["reason"])
        for row in itertools.islice(group, NUM_DROPPED)
    ]


def _clusters(spec: CardSpec, written: Written, scope: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """How many clusters there are of each size, and a dropped document of the largest beside the one that was kept."""
    sizes: Counter[tuple[str, str, int]] = Counter()
    largest: dict[str, list[dict[str, Any]]] = {}
    for row in rows(written.cluster[scope] / "clusters.parquet", ["cluster", "size", "domains", "reason"]):
        sizes[row["reason"], ", ".join(row["domains"]), row["size"]] += 1
        kept = largest.setdefault(row["reason"], [])
        kept.append(row)
        if len(kept) > NUM_CLUSTERS:
            kept.remove(min(kept, key=lambda one: (one["size"], -one["cluster"])))
    counted = [
        {"scope": scope, "reason": reason, "domains": domains, "size": size, "clusters": clusters}
        for (reason, domains, size), clusters in sorted(sizes.items())
    ]
    shown = {row["cluster"]: row["size"] for kept in largest.values() for row in kept}
    return counted, _examples(spec, written, scope, shown)


def _examples(spec: CardSpec, written: Written, scope: str, shown: dict[int, int]) -> list[dict[str, Any]]:
    """The first dropped document of each cluster in `shown` (cluster -> size), and the one kept in its place."""
    columns = ["cluster", "domain", "shard", "row", "reason", "of_domain", "of_shard", "of_row"]
    shards = {domain.name: domain.shards for domain in spec.domains}
    found: dict[int, dict[str, Any]] = {}
    for table in batches(written.cluster[scope] / "duplicates.parquet", columns):
        for row in table.filter(pc.is_in(table["cluster"], pa.array(shown, pa.int64()))).to_pylist():
            found.setdefault(row["cluster"], row)
    return [
        _example(written, row, f"one of {shown[cluster]}", shards)
        for cluster, row in sorted(found.items(), key=lambda item: (item[1]["reason"], -shown[item[0]], item[0]))
    ]


def _example(written: Written, row: dict[str, Any], note: str, shards: dict[str, int]) -> dict[str, Any]:
    """One row of duplicates.parquet with its texts."""
    of_domain = row["of_domain"]
    id_, text = written.text(row["domain"], str(Shard(row["shard"], shards[row["domain"]])), row["row"])
    of_id, of_text = written.text(of_domain, str(Shard(row["of_shard"], shards[of_domain])), row["of_row"])
    told = {"reason": row["reason"], "note": note, "id": id_, "characters": len(text), "excerpt": text[:EXCERPT]}
    return {"domain": row["domain"], "what": "duplicate", **told, "of_id": of_id, "of_excerpt": of_text[:EXCERPT]}


def _overlaps(spec: CardSpec, written: Written) -> list[dict[str, Any]]:
    """Every split in every other of its domain, and in the training text of every other domain."""
    sketches = {(domain.name, split): written.runs(domain, split) for domain in spec.domains for split in SPLITS}
    return [
        _overlap(mine, theirs, sketches)
        for mine, theirs in itertools.product(sketches, sketches)
        if mine != theirs and (mine[0] == theirs[0] or theirs[1] == "train")
    ]


def _overlap(mine: tuple[str, str], theirs: tuple[str, str], sketches: dict[tuple[str, str], Sketch]) -> dict[str, Any]:
    found, alike = containment(sketches[mine], sketches[theirs]), similarity(sketches[mine], sketches[theirs])
    return {
        "domain": mine[0],
        "split": mine[1],
        "in_domain": theirs[0],
        "in_split": theirs[1],
        "share": found.share,
        "standard_error": found.error,
        "compared": found.compared,
        "similarity": alike.share,
    }
