"""Gather duplicate documents into clusters, and decide which to drop.

Example:
    speciate cluster --spec spec.json --signed code=signed/code --pairs pairs.npy --output-folder clusters
"""

import argparse
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from speciate.cli import log, parse_named_paths
from speciate.config.components import Strict
from speciate.config.data import ComparedDomain, ComparedDomains, Duplicates
from speciate.config.run import Name, read_spec
from speciate.config.stage import SIGNED, Stage
from speciate.data.arrays.npy import chunks, read_array
from speciate.data.arrays.scratch import CHUNK_ROWS, Partitions
from speciate.data.dedup.candidates import SignedScope, read_scope
from speciate.data.dedup.clusters import POLICIES, cluster_documents
from speciate.data.dedup.ids import IDS_FILE, read_id
from speciate.data.dedup.signatures import ID_COLUMN
from speciate.data.dedup.tables import count_duplicates, write_clusters, write_duplicates
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    scope: Name
    parts: ComparedDomains
    near: Duplicates | None
    seed: int = 0


STAGE = Stage(
    per="scope",
    reads={"sign": SIGNED, "bucket": ("pairs.npy",)},
    writes=("duplicates.parquet", "clusters.parquet", "counts.json"),
    spec=lambda graph, name: Spec(
        scope=name, parts=graph.compared_domains(name), near=graph.near(name), seed=graph.study.split.seed
    ),
    sharded=False,
)


def check_unique_ids(scope: SignedScope, folders: Mapping[str, pathlib.Path]) -> None:
    """Raise ValueError, naming the domain, the source and the id, if two documents of a domain have the same id."""
    for domain in scope.domains:
        partitions = Partitions(len(scope), [("id", np.uint64), ("document", np.int64)])
        for first, shard in zip(scope.starts.tolist(), scope.shards, strict=False):
            if shard.domain != domain:
                continue
            for start, ids_N in chunks(shard.digests_D5[:, ID_COLUMN], CHUNK_ROWS):
                rows = np.empty(len(ids_N), partitions.dtype)
                rows["id"], rows["document"] = ids_N, np.arange(first + start, first + start + len(ids_N))
                partitions.add(partitions.partitions_by_hash(ids_N), rows)
        for rows in partitions:
            rows = rows[np.argsort(rows["id"], kind="stable")]
            is_repeated = rows["id"][1:] == rows["id"][:-1]
            if is_repeated.any():
                documents = rows["document"][int(np.argmax(is_repeated)) :][:2].tolist()
                shard, row = scope.locate(documents[0])
                source, _, repeated_id = read_id(folders[domain] / str(shard.shard) / IDS_FILE, row).partition("/")
                raise ValueError(f"domain {domain}: source {source}: two records have the id {repeated_id!r}")


def read_pairs(files: Sequence[pathlib.Path], scope: SignedScope) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the pairs of all buckets in chunks, int64 (P, 2). All files are checked before the first pair is yielded.

    Raises:
        ValueError: a file does not hold pairs of these documents; the message names it.
    """
    last = max(0, len(scope) - 1)
    arrays = [read_array(file) for file in files]
    for file, array in zip(files, arrays, strict=True):
        if (
            array.dtype != np.int64
            or array.ndim != 2
            or array.shape[1] != 2
            or any(pairs.min() < 0 or pairs.max() > last for _, pairs in chunks(array, CHUNK_ROWS))
        ):
            raise ValueError(f"{file}: does not hold pairs of these {len(scope)} documents")
    for array in arrays:
        yield from (pairs for _, pairs in chunks(array, CHUNK_ROWS))


def document_policies(scope: SignedScope, parts: Sequence[ComparedDomain]) -> npt.NDArray[np.int8]:
    """Return, as an index in POLICIES, what each document's domain may lose, int8 (D,)."""
    policy_of = {part.name: POLICIES.index(part.duplicates) for part in parts}
    return np.repeat(np.array([policy_of[shard.domain] for shard in scope.shards], np.int8), np.diff(scope.starts))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a Spec")
    parser.add_argument(
        "--signed", nargs="+", required=True, metavar="DOMAIN=FOLDER", help="what `sign` wrote, for each domain"
    )
    parser.add_argument("--pairs", nargs="+", default=[], type=pathlib.Path, help="what each `bucket` job wrote")
    parser.add_argument(
        "--output-folder",
        type=pathlib.Path,
        required=True,
        help="where to write duplicates.parquet, clusters.parquet and counts.json",
    )


def main(arguments: argparse.Namespace) -> None:
    """Cluster the documents, and write which are dropped."""
    spec = read_spec(Spec, arguments.spec)
    if len(arguments.pairs) != (spec.near.buckets if spec.near else 0):
        raise ValueError(
            f"--pairs: {spec.scope}: needs the pairs of every bucket, but {len(arguments.pairs)} files are given"
        )
    names = [part.name for part in spec.parts]
    message = f"--signed: needs each of {', '.join(names)} once, as DOMAIN=FOLDER"
    folders = parse_named_paths(arguments.signed, names, message)
    scope = read_scope(folders, spec.parts, spec.near.bands if spec.near else 0)
    check_unique_ids(scope, folders)
    similarity = spec.near.similarity if spec.near else 1.0
    result = cluster_documents(
        scope.first_of_same_text(),
        read_pairs(arguments.pairs, scope),
        document_policies(scope, spec.parts),
        lambda pairs_P2: scope.similarities(pairs_P2) >= similarity,
    )
    totals = count_duplicates(scope, result)
    with (
        atomic_write(arguments.output_folder / "duplicates.parquet") as duplicates,
        atomic_write(arguments.output_folder / "clusters.parquet") as clusters,
        atomic_write(arguments.output_folder / "counts.json") as temp_path,
    ):
        write_duplicates(duplicates, scope, result)
        write_clusters(clusters, scope, result)
        temp_path.write_text(json.dumps(totals, indent=1) + "\n", encoding="utf-8")
    drops = f"{totals['exact_duplicates']} exact and {totals['near_duplicates']} near-duplicates dropped"
    log(f"{spec.scope}: {totals['documents']} documents, {totals['clusters']} clusters, {drops}")
