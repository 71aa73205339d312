"""Compute the digests and signatures by which documents are compared.

For each document of one shard it writes digests of the text, the group and the id, and the signatures that find
near-duplicates.

Example:
    speciate sign --spec spec.json --documents documents.parquet --output-folder signed
"""

import argparse
import contextlib
import pathlib

from pydantic import Field

from speciate.cli import log
from speciate.config.components import Strict
from speciate.config.data import Duplicates
from speciate.config.run import Name, read_spec
from speciate.config.stage import SIGNED, Stage
from speciate.data.dedup.ids import IDS_FILE, write_ids
from speciate.data.dedup.signatures import SIGNATURE_FILES, sign_documents
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name
    seed: int = Field(ge=0)
    """Seed of the split: the order of groups is part of what is signed."""
    near: Duplicates | None
    """How near-duplicates are found; null: only equal texts count as duplicates."""


STAGE = Stage(
    per="domain",
    reads={"sort": ("documents.parquet",)},
    writes=SIGNED,
    spec=lambda graph, name: Spec(domain=name, seed=graph.study.split.seed, near=graph.near(graph.scope(name))),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a Spec")
    parser.add_argument("--documents", type=pathlib.Path, required=True, help="parquet of the shard's documents")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the digests and signatures"
    )


def main(arguments: argparse.Namespace) -> None:
    """Sign the documents, and write the signatures."""
    spec = read_spec(Spec, arguments.spec)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(atomic_write(arguments.output_folder / name)) for name in SIGNATURE_FILES}
        write_ids(arguments.documents, stack.enter_context(atomic_write(arguments.output_folder / IDS_FILE)))
        count = sign_documents(arguments.documents, files, spec.seed, spec.near)
    log(f"domain {spec.domain}: {count} documents signed{'' if spec.near else ' to find equal texts only'}")
