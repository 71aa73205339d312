"""Compute the digests and signatures by which documents are compared.

Of each document of one shard: digests of its text, its group and its id, and the signatures that find near-duplicates.

Example:
    speciate sign --spec spec.json --documents documents.parquet --output-folder signed
"""

import argparse
import contextlib
import pathlib

from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import SignSpec
from speciate.data.dedup.signatures import FILES, sign
from speciate.io import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a SignSpec")
    parser.add_argument("--documents", type=pathlib.Path, required=True, help="parquet of the shard's documents")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the digests and signatures"
    )


def main(arguments: argparse.Namespace) -> None:
    """Sign the documents, and write the signatures."""
    spec = read_spec(SignSpec, arguments.spec)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(atomic_write(arguments.output_folder / name)) for name in FILES}
        count = sign(arguments.documents, files, spec.seed, spec.near)
    log(f"domain {spec.domain}: {count} documents signed{'' if spec.near else ', for equal texts only'}")
