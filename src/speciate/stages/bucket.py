"""Find pairs of near-duplicates among the documents that agree on some of the bands of their signatures."""

import argparse
import pathlib

from speciate.cli import log, parse_named_paths, run
from speciate.config.run import read_spec
from speciate.config.stage_specs import BucketSpec
from speciate.data.arrays.npy import write_array
from speciate.data.dedup.candidates import read_scope, similar_pairs
from speciate.data.documents import Shard
from speciate.io import atomic_write


def main() -> None:
    """Reads the command line, compares, writes pairs."""
    parser = argparse.ArgumentParser(prog="python -m speciate.stages.bucket", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a BucketSpec")
    parser.add_argument(
        "--signed", nargs="+", required=True, metavar="DOMAIN=FOLDER", help="what `sign` wrote, for each domain"
    )
    parser.add_argument(
        "--bucket", default="0-of-1", metavar="k-of-n", help="bands k, k + n, ... (default: %(default)s, all)"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="gets the pairs, int64 (P, 2)")
    options = parser.parse_args()
    spec = read_spec(BucketSpec, options.spec)
    bucket = Shard.parse(options.bucket)
    names = [part.name for part in spec.parts]
    needs = f"--signed: needs each of {', '.join(names)} once, as DOMAIN=FOLDER"
    scope = read_scope(parse_named_paths(options.signed, names, needs), spec.parts, spec.near.bands)
    pairs_P2 = similar_pairs(scope, range(bucket.index, spec.near.bands, bucket.count), spec.near.similarity)
    with atomic_write(options.output) as temp_path:
        write_array(temp_path, pairs_P2)
    log(f"{spec.scope}, bucket {bucket}: {len(pairs_P2)} pairs join what is similar among {len(scope)} documents")


if __name__ == "__main__":
    run(main)
