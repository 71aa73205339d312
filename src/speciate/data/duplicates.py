"""The files that `cluster` writes: every dropped document with the one kept in its place, and every cluster."""

import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.clusters import Clusters
from speciate.data.similar import Scope

REASONS = ("exact_duplicate", "near_duplicate")
PLACE = (("domain", pa.string()), ("shard", pa.int32()), ("row", pa.int64()))
"""Where a document is: `row` of documents.parquet of that shard of that domain, from 0."""
DUPLICATES = pa.schema(
    [
        *PLACE,
        ("reason", pa.string()),
        ("cluster", pa.int64()),
        *((f"of_{name}", kind) for name, kind in PLACE),
    ]
)
CLUSTERS = pa.schema(
    [("cluster", pa.int64()), ("size", pa.int64()), ("domains", pa.list_(pa.string())), ("reason", pa.string())]
)
NUM_SHOWN = 8
"""Clusters of which counts.json names two documents, the largest first."""


def places(scope: Scope, documents_N: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Where documents are, column by column."""
    shards_N = np.searchsorted(scope.starts, documents_N, side="right") - 1
    found = [scope.shards[shard] for shard in shards_N.tolist()]
    rows = (documents_N - scope.starts[shards_N]).tolist()
    return {"domain": [each.domain for each in found], "shard": [each.shard.index for each in found], "row": rows}


def write_duplicates(file: pathlib.Path, scope: Scope, clusters: Clusters) -> None:
    """One row a dropped document, in the order of domains, shards and rows."""
    dropped = clusters.dropped
    kept = {f"of_{name}": values for name, values in places(scope, clusters.of_D[dropped]).items()}
    reasons = [REASONS[not exact] for exact in clusters.exact_D[dropped].tolist()]
    columns = {"reason": reasons, "cluster": clusters.clusters_D[dropped], **places(scope, dropped), **kept}
    pq.write_table(pa.table(columns, schema=DUPLICATES), file, compression="zstd", write_page_checksum=True)


def write_clusters(file: pathlib.Path, scope: Scope, clusters: Clusters) -> None:
    """One row a cluster; its reason is exact_duplicate where all its texts are equal."""
    domains = scope.domains
    holds_CM = clusters.holds(scope.domains_D, len(domains))
    columns = {
        "cluster": np.arange(len(clusters.sizes_C)),
        "size": clusters.sizes_C,
        "domains": [[domains[index] for index in np.flatnonzero(row).tolist()] for row in holds_CM],
        "reason": [REASONS[not one] for one in clusters.one_text_C.tolist()],
    }
    pq.write_table(pa.table(columns, schema=CLUSTERS), file, compression="zstd", write_page_checksum=True)


def counts(scope: Scope, clusters: Clusters) -> dict[str, Any]:
    """counts.json: documents, drops by reason and clusters, in all and by domain; what domains have in common.

    `shared_clusters` counts for each two domains the clusters that hold documents of both (of a domain with itself:
    those that hold any of it), `dropped_for` the documents of the first that are dropped for one of the second.
    """
    names = scope.domains
    exact = clusters.exact_D
    near = (clusters.of_D >= 0) & ~exact
    holds = clusters.holds(scope.domains_D, len(names)).astype(np.int64)
    dropped = clusters.dropped
    across = np.zeros((len(names), len(names)), np.int64)
    np.add.at(across, (scope.domains_D[dropped], scope.domains_D[clusters.of_D[dropped]]), 1)
    sizes = clusters.sizes_C
    drops = dict(zip(REASONS, (exact, near), strict=True))
    return {
        "documents": len(scope),
        **{f"{reason}s": int(each.sum()) for reason, each in drops.items()},
        "clusters": len(sizes),
        "largest": int(sizes.max(initial=0)),
        "by_domain": {
            name: {
                "documents": int((scope.domains_D == index).sum()),
                **{f"{reason}s": int(each[scope.domains_D == index].sum()) for reason, each in drops.items()},
            }
            for index, name in enumerate(names)
        },
        "shared_clusters": _matrix(names, holds.T @ holds),
        "dropped_for": _matrix(names, across),
        "largest_clusters": [
            {"cluster": index, "size": int(sizes[index]), "documents": _shown(scope, clusters, index)}
            for index in np.argsort(-sizes, kind="stable")[:NUM_SHOWN].tolist()
        ],
    }


def _matrix(names: list[str], values: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    return {name: dict(zip(names, row, strict=True)) for name, row in zip(names, values.tolist(), strict=True)}


def _shown(scope: Scope, clusters: Clusters, index: int) -> list[dict[str, Any]]:
    """The first and the last document of a cluster."""
    members = np.flatnonzero(clusters.clusters_D == index)
    columns = places(scope, members[[0, -1]])
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
