"""The files that `cluster` writes: every dropped document with the one kept in its place, and every cluster."""

import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.arrays.scratch import CHUNK_ROWS
from speciate.data.dedup.candidates import SignedScope
from speciate.data.dedup.clusters import Clusters

REASONS = ("exact_duplicate", "near_duplicate")
LOCATION_FIELDS = (("domain", pa.string()), ("shard", pa.int32()), ("row", pa.int64()))
"""Where a document is: `row` of documents.parquet of that shard of that domain, from 0."""
DUPLICATES = pa.schema(
    [
        *LOCATION_FIELDS,
        ("reason", pa.string()),
        ("cluster", pa.int64()),
        *((f"of_{name}", kind) for name, kind in LOCATION_FIELDS),
    ]
)
CLUSTERS = pa.schema(
    [("cluster", pa.int64()), ("size", pa.int64()), ("domains", pa.list_(pa.string())), ("reason", pa.string())]
)
NUM_LARGEST = 8
"""Clusters of which counts.json names two documents, the largest first."""

ROW_GROUP_ROWS = 1 << 20
"""Rows that are written at a time, as many as a row group has."""


def document_locations(scope: SignedScope, documents_N: npt.NDArray[np.integer[Any]]) -> dict[str, pa.Array]:
    """Where documents are, column by column."""
    shards_N = np.searchsorted(scope.starts, documents_N, side="right") - 1
    domains = pa.array([each.domain for each in scope.shards], pa.string())
    numbers = pa.array([each.shard.index for each in scope.shards], pa.int32())
    rows = pa.array(documents_N - scope.starts[shards_N], pa.int64())
    return {"domain": domains.take(pa.array(shards_N)), "shard": numbers.take(pa.array(shards_N)), "row": rows}


def write_duplicates(file: pathlib.Path, scope: SignedScope, clusters: Clusters) -> None:
    """One row a dropped document, in the order of domains, shards and rows."""
    dropped = clusters.dropped
    with _open_writer(file, DUPLICATES) as writer:
        for start in range(0, max(1, len(dropped)), ROW_GROUP_ROWS):
            here = dropped[start : start + ROW_GROUP_ROWS]
            kept = {f"of_{name}": values for name, values in document_locations(scope, clusters.replacement_D[here]).items()}
            columns = {"reason": _reason_column(clusters.is_exact(here)), "cluster": clusters.clusters_D[here].astype(np.int64)}
            writer.write_table(pa.table(document_locations(scope, here) | columns | kept, schema=DUPLICATES))


def write_clusters(file: pathlib.Path, scope: SignedScope, clusters: Clusters) -> None:
    """One row a cluster; its reason is exact_duplicate where all its texts are equal."""
    names = pa.array(scope.domains, pa.string())
    holds_CM = clusters.domain_membership(scope.domain_indices, len(names))
    sizes_C, one_C = clusters.sizes(), clusters.has_one_text()
    with _open_writer(file, CLUSTERS) as writer:
        for start in range(0, max(1, len(sizes_C)), ROW_GROUP_ROWS):
            here = slice(start, start + ROW_GROUP_ROWS)
            held = holds_CM[here]
            offsets = pa.array(np.append(0, np.cumsum(held.sum(axis=1))), pa.int32())
            columns = {
                "cluster": np.arange(start, start + len(held)),
                "size": sizes_C[here],
                "domains": pa.ListArray.from_arrays(offsets, names.take(pa.array(np.nonzero(held)[1]))),
                "reason": _reason_column(one_C[here]),
            }
            writer.write_table(pa.table(columns, schema=CLUSTERS))


def _open_writer(file: pathlib.Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def _reason_column(exact_N: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(REASONS).take(pa.array((~exact_N).astype(np.int8)))


def count_duplicates(scope: SignedScope, clusters: Clusters) -> dict[str, Any]:
    """counts.json: documents, drops by reason and clusters, in all and by domain; what domains have in common.

    `shared_clusters` counts for each two domains the clusters that hold documents of both (of a domain with itself:
    those that hold any of it), `dropped_for` the documents of the first that are dropped for one of the second.
    """
    names = scope.domains
    holds_CM = clusters.domain_membership(scope.domain_indices, len(names))
    shared = np.zeros((len(names), len(names)), np.int64)
    for start in range(0, len(holds_CM), CHUNK_ROWS):
        held = holds_CM[start : start + CHUNK_ROWS].astype(np.int64)
        shared += held.T @ held
    dropped = clusters.dropped
    drops = np.zeros((len(REASONS), len(names), len(names)), np.int64)  # reason, domain, domain of the one kept
    for start in range(0, len(dropped), CHUNK_ROWS):
        here = dropped[start : start + CHUNK_ROWS]
        reasons = (~clusters.is_exact(here)).astype(np.int64)
        np.add.at(drops, (reasons, scope.domain_indices(here), scope.domain_indices(clusters.replacement_D[here])), 1)
    sizes = clusters.sizes()
    documents = dict.fromkeys(names, 0)
    for shard in scope.shards:
        documents[shard.domain] += len(shard)
    return {
        "documents": len(scope),
        **{f"{reason}s": int(each.sum()) for reason, each in zip(REASONS, drops, strict=True)},
        "clusters": len(sizes),
        "largest": int(sizes.max(initial=0)),
        "by_domain": {
            name: {
                "documents": documents[name],
                **{f"{reason}s": int(each[index].sum()) for reason, each in zip(REASONS, drops, strict=True)},
            }
            for index, name in enumerate(names)
        },
        "shared_clusters": _nested_counts(names, shared),
        "dropped_for": _nested_counts(names, drops.sum(axis=0)),
        "largest_clusters": [
            {"cluster": index, "size": int(sizes[index]), "documents": _example_documents(scope, clusters, index)}
            for index in _largest_clusters(sizes)
        ],
    }


def _largest_clusters(sizes_C: npt.NDArray[np.int64]) -> list[int]:
    """The `NUM_SHOWN` largest clusters, of equal ones the first."""
    found = np.zeros(0, np.int64)
    for start in range(0, len(sizes_C), CHUNK_ROWS):
        found = np.append(found, np.arange(start, min(start + CHUNK_ROWS, len(sizes_C))))
        found = found[np.argsort(-sizes_C[found], kind="stable")][:NUM_LARGEST]
    return found.tolist()


def _nested_counts(names: list[str], values: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(names, values.tolist(), strict=True)}


def _example_documents(scope: SignedScope, clusters: Clusters, index: int) -> list[dict[str, Any]]:
    """The first and the last document of a cluster."""
    members = np.flatnonzero(clusters.clusters_D == index)
    found: list[dict[str, Any]] = pa.table(document_locations(scope, members[[0, -1]])).to_pylist()
    return found
