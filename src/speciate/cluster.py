"""Gather duplicate documents into clusters, and decide which of them are dropped."""

import argparse
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speciate.data.arrays import read_array
from speciate.data.clusters import POLICIES, cluster
from speciate.data.duplicates import counts, write_clusters, write_duplicates
from speciate.data.signatures import ID
from speciate.data.similar import Scope, read_scope
from speciate.spec import read_spec
from speciate.stages import ClusterSpec
from speciate.verb import run, say, writing


def check_ids(scope: Scope) -> None:
    """Raises ValueError where two documents of a domain have one id; names the domain and where they are."""
    ids_D = np.concatenate([np.zeros(0, np.uint64), *(shard.digests_D5[:, ID] for shard in scope.shards)])
    order = np.lexsort((ids_D, scope.domains_D))
    same = (ids_D[order][1:] == ids_D[order][:-1]) & (scope.domains_D[order][1:] == scope.domains_D[order][:-1])
    if same.any():
        first = int(np.argmax(same))
        places = [scope.place(int(document)) for document in order[first : first + 2]]
        told = " and ".join(f"document {row} of shard {shard.shard}" for shard, row in places)
        raise ValueError(f"domain {places[0][0].domain}: {told} have the same id")


def read_pairs(files: Sequence[pathlib.Path], scope: Scope) -> npt.NDArray[np.int64]:
    """The pairs of all buckets, int64 (P, 2). Raises ValueError naming a file that is of other documents."""
    found = [np.zeros((0, 2), np.int64)]
    last = max(0, len(scope) - 1)
    for file in files:
        pairs = read_array(file)
        if (
            pairs.dtype != np.int64
            or pairs.ndim != 2
            or pairs.shape[1] != 2
            or pairs.min(initial=0) < 0
            or pairs.max(initial=0) > last
        ):
            raise ValueError(f"{file}: holds no pairs of these {len(scope)} documents")
        found.append(pairs)
    return np.concatenate(found)


def main() -> None:
    """Reads the command line, clusters, writes what is dropped."""
    parser = argparse.ArgumentParser(prog="python -m speciate.cluster", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a ClusterSpec")
    parser.add_argument(
        "--signed", nargs="+", required=True, metavar="DOMAIN=FOLDER", help="what `sign` wrote, for each domain"
    )
    parser.add_argument("--pairs", nargs="+", default=[], type=pathlib.Path, help="what each `bucket` job wrote")
    parser.add_argument(
        "--output-folder",
        type=pathlib.Path,
        required=True,
        help="gets duplicates.parquet, clusters.parquet, counts.json",
    )
    options = parser.parse_args()
    spec = read_spec(ClusterSpec, options.spec)
    if len(options.pairs) != (spec.near.buckets if spec.near else 0):
        raise ValueError(
            f"--pairs: {spec.scope}: needs the pairs of every bucket, {len(options.pairs)} files are given"
        )
    scope = read_scope(options.signed, spec.parts, spec.near.bands if spec.near else 0)
    check_ids(scope)
    policies = np.array([POLICIES.index(part.duplicates) for part in spec.parts], np.int8)
    similarity = spec.near.similarity if spec.near else 1.0
    found = cluster(
        scope.texts(),
        read_pairs(options.pairs, scope),
        policies[scope.domains_D],
        lambda pairs_P2: scope.similarities(pairs_P2) >= similarity,
    )
    told = counts(scope, found)
    with (
        writing(options.output_folder / "duplicates.parquet") as duplicates,
        writing(options.output_folder / "clusters.parquet") as clusters,
        writing(options.output_folder / "counts.json") as aside,
    ):
        write_duplicates(duplicates, scope, found)
        write_clusters(clusters, scope, found)
        aside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    drops = f"{told['exact_duplicates']} exact and {told['near_duplicates']} near-duplicates dropped"
    say(f"{spec.scope}: {told['documents']} documents, {told['clusters']} clusters, {drops}")


if __name__ == "__main__":
    run(main)
