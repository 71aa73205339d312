"""Sign one shard's documents: digests of text, group and id, and signatures by which near-duplicates are found."""

import argparse
import contextlib
import pathlib

from speciate.cli import log, run
from speciate.config.run import read_spec
from speciate.config.stage_specs import SignSpec
from speciate.data.dedup.signatures import FILES, sign
from speciate.io import atomic_write


def main() -> None:
    """Reads the command line, signs, writes."""
    parser = argparse.ArgumentParser(prog="python -m speciate.stages.sign", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a SignSpec")
    parser.add_argument("--documents", type=pathlib.Path, required=True, help="parquet of the shard's documents")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help=f"gets {', '.join(FILES)}")
    options = parser.parse_args()
    spec = read_spec(SignSpec, options.spec)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(atomic_write(options.output_folder / name)) for name in FILES}
        count = sign(options.documents, files, spec.seed, spec.near)
    log(f"domain {spec.domain}: {count} documents signed{'' if spec.near else ', for equal texts only'}")


if __name__ == "__main__":
    run(main)
