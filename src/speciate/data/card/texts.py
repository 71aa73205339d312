"""Build the card's tables about the texts themselves: duplicates, overlaps and sample documents."""

import itertools
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from speciate.config.stage import SPLITS
from speciate.config.stage_specs import CardDomain, CardSpec
from speciate.data.card.counts import Rows
from speciate.data.card.overlap import containment, similarity
from speciate.data.card.sketch import Sketch
from speciate.data.card.stage_outputs import StageOutputs, compared_scopes, read_batches, read_rows, shard_folders
from speciate.data.card.summary import EXCERPT, NUM_SAMPLES
from speciate.data.clean.dropped import sampling_rank
from speciate.data.shard import Shard

NUM_DROPPED = 3
"""Number of sample documents for each reason of a drop."""
NUM_CLUSTERS = 3
"""Number of clusters, the largest, that give a sample for each scope and reason."""


def text_tables(spec: CardSpec, written: StageOutputs) -> Rows:
    """Build the tables: name -> rows."""
    samples = [
        row for domain in spec.domains for row in (*_kept_samples(written, domain), *_dropped_samples(written, domain))
    ]
    clusters: list[dict[str, Any]] = []
    for scope in compared_scopes(spec):
        sizes, examples = _cluster_rows(spec, written, scope)
        clusters += sizes
        samples += examples
    return {"data_samples": samples, "data_duplicates": clusters, "data_overlaps": _overlap_rows(spec, written)}


def _kept_samples(written: StageOutputs, domain: CardDomain) -> list[dict[str, Any]]:
    """Return sample documents of each split: those of lowest rank over all shards."""
    columns = ["split", "id", "characters", "excerpt", "rank"]
    samples = [
        row
        for part in shard_folders(written.sketch[domain.name], domain)
        for row in read_rows(part / "samples.parquet", columns)
    ]
    samples.sort(key=lambda row: (SPLITS.index(row["split"]), row["rank"], row["id"]))
    return [
        {"domain": domain.name, "what": "kept", **{key: row[key] for key in columns[:-1]}}
        for _, group in itertools.groupby(samples, key=lambda row: row["split"])
        for row in itertools.islice(group, NUM_SAMPLES)
    ]


def _dropped_samples(written: StageOutputs, domain: CardDomain) -> list[dict[str, Any]]:
    """Return sample documents for each reason for which a filter dropped some."""
    columns = ["reason", "note", "id", "characters", "text"]
    samples = [
        row
        for part in shard_folders(written.clean[domain.name], domain)
        for row in read_rows(part / "dropped.parquet", columns)
    ]
    samples.sort(key=lambda row: (row["reason"], sampling_rank(row["id"]), row["id"]))
    return [
        {
            "domain": domain.name,
            "what": "dropped",
            **{key: row[key] for key in columns[:-1]},
            "excerpt": row["text"][:EXCERPT],
        }
        for _, group in itertools.groupby(samples, key=lambda row: row["reason"])
        for row in itertools.islice(group, NUM_DROPPED)
    ]


def _cluster_rows(
    spec: CardSpec, written: StageOutputs, scope: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Count clusters by size, and return from the largest ones a dropped document with the one that was kept."""
    sizes: Counter[tuple[str, str, int]] = Counter()
    largest: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(written.cluster[scope] / "clusters.parquet", ["cluster", "size", "domains", "reason"]):
        sizes[row["reason"], ", ".join(row["domains"]), row["size"]] += 1
        kept = largest.setdefault(row["reason"], [])
        kept.append(row)
        if len(kept) > NUM_CLUSTERS:
            kept.remove(min(kept, key=lambda cluster: (cluster["size"], -cluster["cluster"])))
    counted = [
        {"scope": scope, "reason": reason, "domains": domains, "size": size, "clusters": clusters}
        for (reason, domains, size), clusters in sorted(sizes.items())
    ]
    shown = {row["cluster"]: row["size"] for kept in largest.values() for row in kept}
    return counted, _duplicate_samples(spec, written, scope, shown)


def _duplicate_samples(
    spec: CardSpec, written: StageOutputs, scope: str, shown: dict[int, int]
) -> list[dict[str, Any]]:
    """Return the first dropped document of each cluster in `shown` (cluster -> size), and the one kept for it."""
    columns = ["cluster", "domain", "shard", "row", "reason", "of_domain", "of_shard", "of_row"]
    shards = {domain.name: domain.shards for domain in spec.domains}
    first_rows: dict[int, dict[str, Any]] = {}
    for table in read_batches(written.cluster[scope] / "duplicates.parquet", columns):
        for row in table.filter(pc.is_in(table["cluster"], pa.array(shown, pa.int64()))).to_pylist():
            first_rows.setdefault(row["cluster"], row)
    return [
        _duplicate_sample(written, row, f"one of {shown[cluster]}", shards)
        for cluster, row in sorted(first_rows.items(), key=lambda item: (item[1]["reason"], -shown[item[0]], item[0]))
    ]


def _duplicate_sample(written: StageOutputs, row: dict[str, Any], note: str, shards: dict[str, int]) -> dict[str, Any]:
    """Return the sample of one row of duplicates.parquet, with both texts."""
    of_domain = row["of_domain"]
    id_, text = written.read_text(row["domain"], str(Shard(row["shard"], shards[row["domain"]])), row["row"])
    of_id, of_text = written.read_text(of_domain, str(Shard(row["of_shard"], shards[of_domain])), row["of_row"])
    sample = {"reason": row["reason"], "note": note, "id": id_, "characters": len(text), "excerpt": text[:EXCERPT]}
    return {"domain": row["domain"], "what": "duplicate", **sample, "of_id": of_id, "of_excerpt": of_text[:EXCERPT]}


def _overlap_rows(spec: CardSpec, written: StageOutputs) -> list[dict[str, Any]]:
    """Compare every split with every other split of its domain, and with the training text of every other domain."""
    sketches = {(domain.name, split): written.word_sketch(domain, split) for domain in spec.domains for split in SPLITS}
    return [
        _overlap_row(part, other, sketches)
        for part, other in itertools.product(sketches, sketches)
        if part != other and (part[0] == other[0] or other[1] == "train")
    ]


def _overlap_row(
    part: tuple[str, str], other: tuple[str, str], sketches: dict[tuple[str, str], Sketch]
) -> dict[str, Any]:
    contained = containment(sketches[part], sketches[other])
    return {
        "domain": part[0],
        "split": part[1],
        "in_domain": other[0],
        "in_split": other[1],
        "share": contained.share,
        "standard_error": contained.error,
        "compared": contained.compared,
        "similarity": similarity(sketches[part], sketches[other]).share,
    }
