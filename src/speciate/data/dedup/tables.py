"""Write the files of `cluster`: every dropped document with the one kept in its place, and every cluster."""

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
"""Number of largest clusters of which counts.json names two documents."""

ROW_GROUP_ROWS = 1 << 20
"""Rows of a row group, which are written at once."""


def document_locations(scope: SignedScope, documents_N: npt.NDArray[np.integer[Any]]) -> dict[str, pa.Array]:
    """Return the location of each document, column by column."""
    shards_N = np.searchsorted(scope.starts, documents_N, side="right") - 1
    domains = pa.array([signed.domain for signed in scope.shards], pa.string())
    numbers = pa.array([signed.shard.index for signed in scope.shards], pa.int32())
    rows = pa.array(documents_N - scope.starts[shards_N], pa.int64())
    return {"domain": domains.take(pa.array(shards_N)), "shard": numbers.take(pa.array(shards_N)), "row": rows}


def write_duplicates(file: pathlib.Path, scope: SignedScope, clusters: Clusters) -> None:
    """Write one row per dropped document, in the order of domains, shards and rows."""
    dropped = clusters.dropped
    with _open_writer(file, DUPLICATES) as writer:
        for start in range(0, max(1, len(dropped)), ROW_GROUP_ROWS):
            chunk = dropped[start : start + ROW_GROUP_ROWS]
            kept_columns = {
                f"of_{name}": values
                for name, values in document_locations(scope, clusters.replacement_D[chunk]).items()
            }
            columns = {
                "reason": _reason_column(clusters.is_exact(chunk)),
                "cluster": clusters.clusters_D[chunk].astype(np.int64),
            }
            writer.write_table(pa.table(document_locations(scope, chunk) | columns | kept_columns, schema=DUPLICATES))


def write_clusters(file: pathlib.Path, scope: SignedScope, clusters: Clusters) -> None:
    """Write one row per cluster; its reason is exact_duplicate if all its texts are equal."""
    names = pa.array(scope.domains, pa.string())
    membership_CM = clusters.domain_membership(scope.domain_indices, len(names))
    sizes_C, has_one_C = clusters.sizes(), clusters.has_one_text()
    with _open_writer(file, CLUSTERS) as writer:
        for start in range(0, max(1, len(sizes_C)), ROW_GROUP_ROWS):
            chunk = slice(start, start + ROW_GROUP_ROWS)
            membership = membership_CM[chunk]
            offsets = pa.array(np.append(0, np.cumsum(membership.sum(axis=1))), pa.int32())
            columns = {
                "cluster": np.arange(start, start + len(membership)),
                "size": sizes_C[chunk],
                "domains": pa.ListArray.from_arrays(offsets, names.take(pa.array(np.nonzero(membership)[1]))),
                "reason": _reason_column(has_one_C[chunk]),
            }
            writer.write_table(pa.table(columns, schema=CLUSTERS))


def _open_writer(file: pathlib.Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)


def _reason_column(exact_N: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(REASONS).take(pa.array((~exact_N).astype(np.int8)))


def count_duplicates(scope: SignedScope, clusters: Clusters) -> dict[str, Any]:
    """Return counts.json: documents, drops by reason and clusters, in all and by domain, and what domains share.

    `shared_clusters` counts, for each pair of domains, the clusters that hold documents of both (of a domain with
    itself: those that hold any of it). `dropped_for` counts the documents of the first domain that are dropped for one
    of the second.
    """
    names = scope.domains
    membership_CM = clusters.domain_membership(scope.domain_indices, len(names))
    shared = np.zeros((len(names), len(names)), np.int64)
    for start in range(0, len(membership_CM), CHUNK_ROWS):
        membership = membership_CM[start : start + CHUNK_ROWS].astype(np.int64)
        shared += membership.T @ membership
    dropped = clusters.dropped
    drops = np.zeros((len(REASONS), len(names), len(names)), np.int64)  # reason, domain, domain of the one kept
    for start in range(0, len(dropped), CHUNK_ROWS):
        chunk = dropped[start : start + CHUNK_ROWS]
        reasons = (~clusters.is_exact(chunk)).astype(np.int64)
        np.add.at(drops, (reasons, scope.domain_indices(chunk), scope.domain_indices(clusters.replacement_D[chunk])), 1)
    sizes = clusters.sizes()
    documents = dict.fromkeys(names, 0)
    for shard in scope.shards:
        documents[shard.domain] += len(shard)
    return {
        "documents": len(scope),
        **{f"{reason}s": int(by_pair.sum()) for reason, by_pair in zip(REASONS, drops, strict=True)},
        "clusters": len(sizes),
        "largest": int(sizes.max(initial=0)),
        "by_domain": {
            name: {
                "documents": documents[name],
                **{f"{reason}s": int(by_pair[index].sum()) for reason, by_pair in zip(REASONS, drops, strict=True)},
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
    """Return the `NUM_LARGEST` largest clusters, the first of equal ones."""
    largest = np.zeros(0, np.int64)
    for start in range(0, len(sizes_C), CHUNK_ROWS):
        largest = np.append(largest, np.arange(start, min(start + CHUNK_ROWS, len(sizes_C))))
        largest = largest[np.argsort(-sizes_C[largest], kind="stable")][:NUM_LARGEST]
    return largest.tolist()


def _nested_counts(names: list[str], values: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(names, values.tolist(), strict=True)}


def _example_documents(scope: SignedScope, clusters: Clusters, index: int) -> list[dict[str, Any]]:
    """Return the first and the last document of a cluster."""
    members = np.flatnonzero(clusters.clusters_D == index)
    rows: list[dict[str, Any]] = pa.table(document_locations(scope, members[[0, -1]])).to_pylist()
    return rows
