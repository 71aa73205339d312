r"""Write one shard's documents by split, without the duplicates.

Example:
    speciate write_splits --spec spec.json --documents documents.parquet --duplicates duplicates.parquet \
        --groups splits/groups.npy --output-folder code
"""

import argparse
import contextlib
import json
import pathlib

from pydantic import Field

from speciate.cli import log
from speciate.config.components import Strict
from speciate.config.run import Name, read_spec
from speciate.config.stage import SPLITS, Stage
from speciate.data.documents import DocumentWriter, num_documents, read_documents
from speciate.data.shard import Shard
from speciate.data.splits.read import GroupSplits, read_dropped_rows
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name
    shards: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    """Seed of the split, which is part of the key of a group."""


STAGE = Stage(
    per="domain",
    reads={"sort": ("documents.parquet",), "cluster": ("duplicates.parquet",), "assign_splits": ("groups.npy",)},
    writes=(*(f"{split}.parquet" for split in SPLITS), "counts.json"),
    spec=lambda graph, name: Spec(domain=name, seed=graph.study.split.seed, **graph.domain_settings(name, "shards")),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a Spec")
    parser.add_argument("--documents", type=pathlib.Path, required=True, help="parquet of the shard's documents")
    parser.add_argument(
        "--duplicates", type=pathlib.Path, required=True, help="parquet of the dropped documents, from `cluster`"
    )
    parser.add_argument("--groups", type=pathlib.Path, required=True, help="groups.npy, from `assign_splits`")
    parser.add_argument(
        "--shard", default="0-of-1", metavar="k-of-n", help="which shard of the domain (default: %(default)s)"
    )
    parser.add_argument(
        "--output-folder",
        type=pathlib.Path,
        required=True,
        help="where to write one file for each split, and counts.json",
    )


def main(arguments: argparse.Namespace) -> None:
    """Write one file of documents for each split."""
    spec = read_spec(Spec, arguments.spec)
    shard = Shard.parse(arguments.shard)
    if shard.count != spec.shards:
        raise ValueError(f"--shard: {shard} does not fit domain {spec.domain}, which has {spec.shards} shards")
    groups = GroupSplits(arguments.groups, spec.seed)
    count = num_documents(arguments.documents)
    dropped = set(read_dropped_rows(arguments.duplicates, spec.domain, shard, count).tolist())
    counts = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
    with contextlib.ExitStack() as stack:
        temp_paths = {
            split: stack.enter_context(atomic_write(arguments.output_folder / f"{split}.parquet")) for split in SPLITS
        }
        counts_path = stack.enter_context(atomic_write(arguments.output_folder / "counts.json"))
        with contextlib.ExitStack() as writers:
            files = {split: writers.enter_context(DocumentWriter(temp_paths[split])) for split in SPLITS}
            for row, document in enumerate(read_documents(arguments.documents)):
                if row not in dropped:
                    split = SPLITS[groups.split(document.group)]
                    files[split].write(document)
                    counts[split]["documents"] += 1
                    counts[split]["bytes"] += len(document.text.encode())
        counts_path.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    shares = ", ".join(f"{split} {split_counts['documents']}" for split, split_counts in counts.items())
    log(f"domain {spec.domain}, shard {shard}: documents: {shares}; {len(dropped)} duplicates left out")
