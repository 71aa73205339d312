"""Find near-duplicate pairs among documents that share a signature band.

The bands are divided among buckets, one job each.

Example:
    speciate bucket --spec spec.json --signed code=signed/code prose=signed/prose --bucket 0-of-2 --output pairs.npy
"""

import argparse
import pathlib

from speciate.cli import log, parse_named_paths
from speciate.config.components import Strict
from speciate.config.data import ComparedDomains, Duplicates
from speciate.config.run import Name, read_spec
from speciate.config.stage import SIGNED, Stage
from speciate.data.arrays.npy_writers import write_array
from speciate.data.dedup.candidates import find_similar_pairs, read_scope
from speciate.data.shard import Shard
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    scope: Name
    """A domain, or `domains` where all domains are compared with each other."""
    parts: ComparedDomains
    near: Duplicates


STAGE = Stage(
    per="scope",
    reads={"sign": SIGNED},
    writes=("pairs.npy",),
    runs_for=lambda graph, name: graph.near(name) is not None,
    spec=lambda graph, name: Spec(scope=name, parts=graph.compared_domains(name), near=graph.near(name)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a Spec")
    parser.add_argument(
        "--signed", nargs="+", required=True, metavar="DOMAIN=FOLDER", help="what `sign` wrote, for each domain"
    )
    parser.add_argument(
        "--bucket", default="0-of-1", metavar="k-of-n", help="bands k, k + n, ... (default: %(default)s, all)"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, help="where to write the pairs, int64 (P, 2), as .npy"
    )


def main(arguments: argparse.Namespace) -> None:
    """Compare the documents of a bucket, and write the pairs."""
    spec = read_spec(Spec, arguments.spec)
    bucket = Shard.parse(arguments.bucket)
    names = [part.name for part in spec.parts]
    message = f"--signed: needs each of {', '.join(names)} once, as DOMAIN=FOLDER"
    scope = read_scope(parse_named_paths(arguments.signed, names, message), spec.parts, spec.near.bands)
    pairs_P2 = find_similar_pairs(scope, range(bucket.index, spec.near.bands, bucket.count), spec.near.similarity)
    with atomic_write(arguments.output) as temp_path:
        write_array(temp_path, pairs_P2)
    log(f"{spec.scope}, bucket {bucket}: {len(pairs_P2)} pairs connect the similar ones of {len(scope)} documents")
