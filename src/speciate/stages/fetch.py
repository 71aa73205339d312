"""Fetch one source: download what the study pins, or list the user's own files.

What is written is the archive that `clean` reads. Of a source of kind `files` it is a list of the files with their
sizes and sha256, which `clean` checks again. A source that can be divided is fetched shard by shard.

Example:
    speciate fetch --spec results/data/fetch/django-<key>/spec.json --output archive
"""

import argparse
import pathlib
import time
from typing import Annotated

from speciate.cli import log
from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import SourceOptions
from speciate.config.run import Name, read_spec
from speciate.config.stage import Stage
from speciate.data.shard import Shard
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads: one source."""

    name: Name
    source: Annotated[SourceOptions, OneOf("data/fetch/sources")]


STAGE = Stage(
    per="source",
    reads={},
    writes=("archive",),
    spec=lambda graph, name: Spec(name=name, source=graph.sources[name]),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the stage's spec: the source")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="archive to write")
    parser.add_argument(
        "--shard",
        default="0-of-1",
        help="which shard of a source that can be divided, such as 0-of-8 (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Fetch the source, and write its archive."""
    spec, shard = read_spec(Spec, arguments.spec), Shard.parse(arguments.shard)
    if shard.count > 1 and not spec.source.sharded:
        raise ValueError(f"--shard: source {spec.name}: kind {spec.source.kind} is fetched whole, not in {shard.count}")
    started = time.perf_counter()
    with atomic_write(arguments.output) as target:
        spec.source.component().fetch(spec.source, spec.name, target, shard)
    megabytes = arguments.output.stat().st_size / 1e6
    shard_text = f", shard {shard}" if shard.count > 1 else ""
    origin = "of your own files, as they are now" if spec.source.local_globs() else "as the study says"
    log(f"source {spec.name}{shard_text}: {megabytes:.1f} MB in {time.perf_counter() - started:.1f} s, {origin}")
