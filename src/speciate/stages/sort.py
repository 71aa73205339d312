"""Put the cleaned documents of a domain into the order of their texts.

Each job gathers one part of the order from all shards. The order (data/sorted_documents.py) does not depend on files,
rows or shards. So neither does what follows: which of two duplicates is kept, the splits, the tokens and the blocks.
With `max_bytes` the domain keeps the first documents in that order, up to the one that reaches the limit.

Example:
    speciate sort --spec spec.json --cleaned cleaned/code --shard 0-of-2 --output-folder sorted
"""

import argparse
import json
import pathlib

from pydantic import Field

from speciate.cli import log
from speciate.config.components import Strict
from speciate.config.run import Name, read_spec
from speciate.config.stage import Stage
from speciate.data.documents import read_documents
from speciate.data.shard import Shard
from speciate.data.sorted_documents import DocumentSorter, Part
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name
    max_bytes: int | None = None
    """Most bytes of text that the domain keeps; None: no limit."""
    shards: int = Field(1, ge=1)


STAGE = Stage(
    per="domain",
    reads={"clean": ("documents.parquet", "counts.json")},
    writes=("documents.parquet", "counts.json"),
    spec=lambda graph, name: Spec(domain=name, **graph.domain_settings(name, "max_bytes", "shards")),
    gathers=("clean",),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a Spec")
    parser.add_argument(
        "--cleaned", type=pathlib.Path, required=True, help="what `clean` wrote for the domain: one folder a shard"
    )
    parser.add_argument(
        "--shard", default="0-of-1", metavar="k-of-n", help="which part of the order (default: %(default)s, all of it)"
    )
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write documents.parquet and counts.json"
    )


def read_parts(file: pathlib.Path, count: int) -> list[Part]:
    """Read the parts of a cleaned file from its counts.json. Raises ValueError naming the file if it lacks them."""
    try:
        parts = [Part(**part) for part in json.loads(file.read_text(encoding="utf-8"))["parts"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: does not hold the counts of cleaning: {error!r}") from None
    if len(parts) != count:
        raise ValueError(f"{file}: has {len(parts)} parts, not {count}")
    return parts


def main(arguments: argparse.Namespace) -> None:
    """Gather the documents, and write those within the domain's limit."""
    spec, shard = read_spec(Spec, arguments.spec), Shard.parse(arguments.shard)
    if shard.count != spec.shards:
        raise ValueError(f"--shard: {shard} does not fit domain {spec.domain}, which has {spec.shards} shards")
    folders = [arguments.cleaned / str(Shard(index, spec.shards)) for index in range(spec.shards)]
    parts = [read_parts(folder / "counts.json", spec.shards) for folder in folders]
    found = [of_folder[shard.index] for of_folder in parts]
    limit = None
    if spec.max_bytes is not None:
        limit = max(0, spec.max_bytes - sum(part.bytes for of_folder in parts for part in of_folder[: shard.index]))
    sorter = DocumentSorter()
    for folder, of_folder in zip(folders, parts, strict=True) if limit != 0 else ():
        start = sum(part.row_groups for part in of_folder[: shard.index])
        stop = start + of_folder[shard.index].row_groups
        for document in read_documents(folder / "documents.parquet", start=start, stop=stop):
            sorter.add(document)
    with (
        atomic_write(arguments.output_folder / "documents.parquet") as documents,
        atomic_write(arguments.output_folder / "counts.json") as counts_path,
    ):
        (kept,) = sorter.write(documents, max_bytes=limit)
        counts = {
            "documents": kept.documents,
            "bytes": kept.bytes,
            "documents_left_out": sum(part.documents for part in found) - kept.documents,
            "bytes_left_out": sum(part.bytes for part in found) - kept.bytes,
        }
        counts_path.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    left_out = counts["documents_left_out"]
    limited = f"; max_bytes left out {left_out}" if left_out else ""
    log(f"domain {spec.domain}, shard {shard}: {kept.documents} documents, {kept.bytes / 1e6:.2f} MB{limited}")
